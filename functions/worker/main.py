"""Where the worker meets Lambda. Everything is made once, before the first batch."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

from functions.adapters import aws
from functions.adapters.audit import DynamoAudit
from functions.adapters.aws_wire import region_of
from functions.adapters.caps import DynamoCaps
from functions.adapters.documents import S3Documents
from functions.adapters.health import DynamoHealthCounts, DynamoHealthRecords
from functions.adapters.hosts import AllowedHosts
from functions.adapters.http import HttpCaller
from functions.adapters.ledger import DynamoLedger
from functions.adapters.llm import LlmClassifier
from functions.adapters.mindee import MindeeProvider
from functions.adapters.parser import ParserProvider
from functions.adapters.recipients import DynamoRecipients
from functions.adapters.recovery import DynamoRecovery
from functions.adapters.richpanel import RichpanelProvider
from functions.adapters.s3 import S3Envelopes
from functions.adapters.ses import SesProvider
from functions.adapters.sqs_hints import SqsVisibility
from functions.adapters.ssm import IntegrationSettings, SsmSwitches
from functions.adapters.stripe import StripeProvider
from functions.adapters.twilio import TwilioProvider
from functions.catalog.loader import load
from functions.core.clock import SystemClock, SystemIds, SystemRandom
from functions.flows.registry import flows_of
from functions.observability import logger, metrics
from functions.worker.attempts import SWITCHES_MAX_AGE_MS
from functions.worker.handler import build
from functions.worker.ports import Ports
from functions.worker.settings import LOCAL, WorkerSettings

_settings = WorkerSettings.from_env()
_clock, _ids = SystemClock(), SystemIds()
_metrics = metrics("worker", _settings.stage)
_catalog = load()
_dynamodb, _s3, _ssm, _sqs = aws.dynamodb_client(), aws.s3_client(), aws.ssm_client(), aws.sqs_client()
_hosts = AllowedHosts.of(_catalog.integrations, is_loopback_allowed=_settings.stage == LOCAL)
_secrets = IntegrationSettings(_ssm, _settings.integrations_path, _clock, _hosts)
_switches = SsmSwitches(_ssm, _settings.switches_path, _clock, _metrics.count, _metrics.milliseconds)
_prompt = _catalog.prompts["support"]
_helpdesk = _catalog.integrations["helpdesk"]
_documents = S3Documents(_s3, _settings.bucket)

# One loop for the life of the environment: connections belong to the loop that opened them.
_loop = asyncio.new_event_loop()

# Read here, where no event waits: what the first batch cannot read in time counts as `route_only`, and its replies
# are suppressed for good. A read that fails here is tried again by that batch.
_switches.snapshot(SWITCHES_MAX_AGE_MS)


def _run(work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    return _loop.run_until_complete(work)


handler = build(
    _settings,
    Ports(
        ledger=DynamoLedger(
            _dynamodb,
            _ids,
            ledger_table=_settings.ledger_table,
            control_table=_settings.control_table,
            recovery_table=_settings.recovery_table,
            audit_table=_settings.audit_table,
        ),
        recovery=DynamoRecovery(
            _dynamodb,
            _ids,
            recovery_table=_settings.recovery_table,
            audit_table=_settings.audit_table,
            count=_metrics.count,
        ),
        counts=DynamoHealthCounts(_dynamodb, _settings.control_table, _ids),
        health=DynamoHealthRecords(
            _dynamodb, _ids, control_table=_settings.control_table, audit_table=_settings.audit_table
        ),
        recipients=DynamoRecipients(_dynamodb, _settings.recipients_table, _settings.audit_table),
        caps=DynamoCaps(_dynamodb, _settings.control_table),
        audit=DynamoAudit(_dynamodb, _settings.audit_table),
        switches=_switches,
        envelopes=S3Envelopes(_s3, _settings.bucket),
        providers={
            "helpdesk": RichpanelProvider(
                HttpCaller(_clock),
                _secrets,
                _clock,
                _catalog.text_of,
                definite_statuses=_helpdesk.definite_statuses,
            ),
            "payments": StripeProvider(
                HttpCaller(_clock),
                _secrets,
                _clock,
                definite_statuses=_catalog.integrations["payments"].definite_statuses,
            ),
            "ocr": MindeeProvider(
                HttpCaller(_clock),
                _secrets,
                _clock,
                _documents,
                definite_statuses=_catalog.integrations["ocr"].definite_statuses,
            ),
            "parser": ParserProvider(_documents),
            "sms": TwilioProvider(
                HttpCaller(_clock),
                _secrets,
                _clock,
                _catalog.text_of,
                definite_statuses=_catalog.integrations["sms"].definite_statuses,
            ),
            "email": SesProvider(
                HttpCaller(_clock),
                _secrets,
                _clock,
                _catalog.text_of,
                _catalog.subject_of,
                region=region_of(os.environ),
                definite_statuses=_catalog.integrations["email"].definite_statuses,
            ),
        },
        classifier=LlmClassifier(
            HttpCaller(_clock),
            _secrets,
            _clock,
            prompt=_prompt.text,
            prompt_version=_prompt.version,
            default_model="gpt-4.1-mini",
        ),
        visibility=SqsVisibility(
            _sqs,
            {
                url.rpartition("/")[2]: url
                for url in (_settings.events_queue_url, _settings.retries_queue_url, _settings.replays_queue_url)
            },
        ),
        clock=_clock,
        ids=_ids,
        rng=SystemRandom(),
        io=asyncio.to_thread,
        log=logger("worker"),
        meter=_metrics,
        integrations=_catalog.integrations,
        flows=flows_of(_catalog),
        fallbacks=_catalog.fallbacks,
        automatic_per_hour={name: rules.max_automatic_per_hour for name, rules in _catalog.flows.items()},
    ),
    run=_run,
    flush=_metrics.flush,
)
