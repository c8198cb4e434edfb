"""Figures of CloudWatch, several in one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ops.stack import Stack

Query = Mapping[str, Any]


def query(
    query_id: str, namespace: str, metric: str, dimensions: Mapping[str, str], period: int, statistic: str
) -> Query:
    """A metric, asked for by an id that begins with a small letter. `period` in seconds."""
    named = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    return {
        "Id": query_id,
        "MetricStat": {
            "Metric": {"Namespace": namespace, "MetricName": metric, "Dimensions": named},
            "Period": period,
            "Stat": statistic,
        },
    }


def of_queue(query_id: str, stack: Stack, output: str, metric: str, period: int, statistic: str) -> Query:
    """A metric of the queue whose URL stands under that output."""
    queue = {"QueueName": stack.output(output).rsplit("/", 1)[-1]}
    return query(query_id, "AWS/SQS", metric, queue, period, statistic)


def metrics(stack: Stack, queries: Sequence[Query], since: int, until: int) -> dict[str, dict[int, float]]:
    """Each query's values by its id, and by when their period began, the newest first. Times are epoch seconds."""
    pages = (
        stack.client("cloudwatch")
        .get_paginator("get_metric_data")
        .paginate(
            MetricDataQueries=list(queries),
            StartTime=datetime.fromtimestamp(since, UTC),
            EndTime=datetime.fromtimestamp(until, UTC),
            ScanBy="TimestampDescending",
        )
    )
    found: dict[str, dict[int, float]] = {str(one["Id"]): {} for one in queries}
    for result in (result for page in pages for result in page["MetricDataResults"]):
        moments = [int(moment.timestamp()) for moment in result["Timestamps"]]
        found[result["Id"]] |= dict(zip(moments, result["Values"], strict=True))
    return found
