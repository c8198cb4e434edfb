"""What of a stage the command line asks beside the tables: queues, metrics, the bucket, the log of ingress."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError


class Sqs:
    """Queues of which only the depths are asked for."""

    def __init__(self) -> None:
        self.depths: dict[str, int] = {}

    def get_queue_attributes(self, *, QueueUrl: str, AttributeNames: list[str]) -> dict[str, Any]:  # noqa: N803  # SQS's
        depth = self.depths.get(QueueUrl.rsplit("/", 1)[-1], 0)
        return {"Attributes": {name: str(depth if index == 0 else 0) for index, name in enumerate(AttributeNames)}}


class CloudWatch:
    """Metrics by their name and the values of their dimensions: the newest value first, with its moment."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], list[tuple[int, float]]] = {}
        self.is_refused = False

    def get_paginator(self, operation: str) -> CloudWatch:
        assert operation == "get_metric_data"
        return self

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        """A page for each query."""
        if self.is_refused:
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetMetricData")
        for query in request["MetricDataQueries"]:
            metric = query["MetricStat"]["Metric"]
            key = (metric["MetricName"], *(one["Value"] for one in metric["Dimensions"]))
            told = [(datetime.fromtimestamp(at_ms / 1000, UTC), value) for at_ms, value in self.values.get(key, [])]
            told = [one for one in told if request["StartTime"] <= one[0] < request["EndTime"]]
            yield {
                "MetricDataResults": [
                    {
                        "Id": query["Id"],
                        "Timestamps": [one[0] for one in told],
                        "Values": [one[1] for one in told],
                    }
                ]
            }


class Bucket:
    """A bucket of which only the spill is asked for."""

    def __init__(self) -> None:
        self.spilled = 0

    def list_objects_v2(self, *, Bucket: str, Prefix: str) -> dict[str, Any]:  # noqa: N803  # S3's
        assert (Bucket, Prefix) == ("bucket", "spill/")
        return {"KeyCount": self.spilled}


class Log:
    """The log of ingress, and the function that names it."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.is_endless = False

    def get_function_configuration(self, *, FunctionName: str) -> dict[str, Any]:  # noqa: N803  # Lambda's
        assert FunctionName == "ingress"
        return {"LoggingConfig": {"LogGroup": "/door"}}

    def filter_log_events(self, **request: Any) -> dict[str, Any]:
        if self.is_endless:
            return {"events": [], "nextToken": "more"}
        wanted = [
            {"timestamp": line["timestamp"], "message": json.dumps(line), "eventId": str(number)}
            for number, line in enumerate(self.lines)
            if request["startTime"] <= line["timestamp"] <= request["endTime"]
        ]
        return {"events": wanted}
