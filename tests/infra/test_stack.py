"""Facts about the templates. Physical and logical names are read from the template, never spelled here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from cdk_nag import AwsSolutionsChecks, ServerlessChecks

from functions.adapters.replay_plans import PREFIX
from functions.catalog.loader import load
from functions.core.decision import DEFAULT_EXPIRES_SECONDS
from functions.core.document import DOCUMENTS, PARSED
from functions.core.event import CLAIMS, SPILL
from functions.core.recovery import TOO_OLD_TO_REPLAY_MS
from functions.core.rows import EVENT_EXPIRES_SECONDS
from functions.core.switches import everyday, pattern_of
from functions.env import EnvSettings
from functions.evaluator.settings import EvaluatorSettings
from functions.ingress.request import Route
from functions.ingress.settings import IngressSettings
from functions.operator_api.caller import Permission
from functions.operator_api.settings import OperatorApiSettings
from functions.pager.settings import PagerSettings
from functions.replay.settings import ReplaySettings
from functions.sweeper.settings import SweeperSettings
from functions.synthetic.settings import EVERY_MINUTES, SyntheticSettings
from functions.triage.settings import TriageSettings
from functions.worker.leases import ENVIRONMENTS
from functions.worker.settings import WorkerSettings
from infra.config import LOGIN_REDIRECTS, STAGES
from infra.operations import SWITCHES, Switch
from infra.python_function import PythonFunction
from tests.template import Resource, Template, new_stack

ROOT = Path(__file__).parent.parent.parent
FOURTEEN_DAYS = 14 * 24 * 60 * 60
SETTINGS: dict[str, type[EnvSettings]] = {
    "ingress": IngressSettings,
    "worker": WorkerSettings,
    "triage": TriageSettings,
    "sweeper": SweeperSettings,
    "evaluator": EvaluatorSettings,
    "replay": ReplaySettings,
    "operator_api": OperatorApiSettings,
    "pager": PagerSettings,
    "synthetic": SyntheticSettings,
}
OUTPUTS = {
    "AlarmTopicArns",
    "ApiId",
    "ApiUrl",
    "AuditTable",
    "Bucket",
    "ControlTable",
    "EvaluatorFunction",
    "EventsDlqUrl",
    "EventsQueueUrl",
    "IngressFunction",
    "IntegrationsPath",
    "LedgerTable",
    "LoginUrl",
    "OncallPath",
    "OncallTopicArn",
    "OperateClientId",
    "OperatorApiFunction",
    "OpsDlqUrl",
    "PagerFunction",
    "PagesDlqUrl",
    "PagesQueueUrl",
    "PeopleClientId",
    "RecipientsTable",
    "RecoveryTable",
    "ReplayFunction",
    "ReplaysDlqUrl",
    "ReplaysQueueUrl",
    "RetriesDlqUrl",
    "RetriesQueueUrl",
    "SourcesPath",
    "SweeperFunction",
    "SwitchesPath",
    "SyntheticFunction",
    "TriageFunction",
    "UserPoolId",
    "ViewClientId",
    "WorkerFunction",
}


def functions(template: Template) -> Iterator[tuple[str, Resource]]:
    for resource in template.of_type("AWS::Lambda::Function").values():
        handler = resource["Properties"]["Handler"]
        found = re.fullmatch(r"functions\.(\w+)\.main\.handler", handler)
        assert found, handler
        yield found.group(1), resource


def refers_to(value: Any) -> set[str]:
    """Logical ids that a value of a template refers to."""
    match value:
        case {"Ref": str(name)}:
            return {name}
        case {"Fn::GetAtt": [str(name), _]}:
            return {name}
        case dict():
            return set().union(*(refers_to(item) for item in value.values()))
        case list():
            return set().union(*(refers_to(item) for item in value))
    return set()


DEAD_LETTERS = ("EventsDlqUrl", "RetriesDlqUrl", "ReplaysDlqUrl", "OpsDlqUrl", "PagesDlqUrl")


def dead_letter_queues(template: Template) -> set[str]:
    return {template.output(key)["Ref"] for key in DEAD_LETTERS}


# -------------------------------------------------------------------------------------------------------------- queues


def test_every_queue_has_a_dead_letter_queue_or_is_one(template: Template) -> None:
    queues = template.of_type("AWS::SQS::Queue")
    dlqs = dead_letter_queues(template)
    assert len(queues) == 9
    for name, queue in queues.items():
        redrive = queue["Properties"].get("RedrivePolicy")
        if name in dlqs:
            assert redrive is None
        else:
            assert refers_to(redrive["deadLetterTargetArn"]) <= dlqs
            assert redrive["maxReceiveCount"] == template.config.max_receive_count


def test_a_dead_letter_queue_takes_messages_from_its_own_queue_only(template: Template) -> None:
    queues = template.of_type("AWS::SQS::Queue")
    names = {queue["Properties"]["QueueName"] for queue in queues.values()}
    for logical_id in dead_letter_queues(template):
        properties = queues[logical_id]["Properties"]
        allowed = properties["RedriveAllowPolicy"]
        if logical_id == template.output("OpsDlqUrl")["Ref"]:
            assert allowed == {"redrivePermission": "denyAll"}
            continue
        assert allowed["redrivePermission"] == "byQueue"
        (source,) = allowed["sourceQueueArns"]
        source_name = json.dumps(source).rstrip('"]}').rsplit(":", 1)[1]
        assert source_name in names
        assert f"{source_name}-dlq" == properties["QueueName"]


def test_queues_keep_messages_for_fourteen_days_and_are_encrypted(template: Template) -> None:
    """002.10: what was acknowledged outlasts a long outage of ours."""
    for queue in template.of_type("AWS::SQS::Queue").values():
        assert queue["Properties"]["MessageRetentionPeriod"] == FOURTEEN_DAYS
        assert queue["Properties"]["SqsManagedSseEnabled"] is True


def test_a_queue_hides_a_message_for_several_timeouts_of_its_reader(template: Template) -> None:
    queues = template.of_type("AWS::SQS::Queue")
    resources = template.body["Resources"]
    mappings = template.of_type("AWS::Lambda::EventSourceMapping")
    for mapping in mappings.values():
        (queue,) = refers_to(mapping["Properties"]["EventSourceArn"])
        (function,) = refers_to(mapping["Properties"]["FunctionName"])
        timeout = resources[function]["Properties"]["Timeout"]
        # The emulator never throttles a poll, and a killed worker's messages must come back while somebody watches.
        times = 2 if template.config.emulated else 6
        assert queues[queue]["Properties"]["VisibilityTimeout"] >= times * timeout
    assert len(mappings) == 7


def test_mappings_report_failures_one_by_one_and_bound_their_concurrency(template: Template) -> None:
    """002.25"""
    concurrency: dict[str, int] = {}
    for mapping in template.of_type("AWS::Lambda::EventSourceMapping").values():
        properties = mapping["Properties"]
        assert properties["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert properties["BatchSize"] == 10
        assert "MaximumBatchingWindowInSeconds" not in properties
        (queue,) = refers_to(properties["EventSourceArn"])
        name = template.body["Resources"][queue]["Properties"]["QueueName"]
        concurrency[name.removeprefix(f"holdfast-{template.config.name}-")] = properties["ScalingConfig"][
            "MaximumConcurrency"
        ]
    assert concurrency == {
        "events": 10,
        "retries": 2,
        "replays": 2,
        "events-dlq": 2,
        "retries-dlq": 2,
        "replays-dlq": 2,
        "pages": 2,
    }
    workers = sum(concurrency[queue] for queue in ("events", "retries", "replays"))
    assert workers <= ENVIRONMENTS  # each goes by its share of a rate when the limiter cannot be asked


def test_every_integration_of_the_catalog_has_a_switch_for_its_rate_002_21() -> None:
    limits = {switch.name.removeprefix("limits/") for switch in SWITCHES if switch.name.startswith("limits/")}
    assert limits == set(load().integrations)


# ----------------------------------------------------------------------------------------------------------- functions


def test_each_function_reads_back_exactly_the_settings_it_is_given(template: Template) -> None:
    seen = set()
    for name, resource in functions(template):
        variables = resource["Properties"]["Environment"]["Variables"]
        environ = {key: value if isinstance(value, str) else "resolved" for key, value in variables.items()}
        settings = SETTINGS[name].from_env(environ)
        assert settings.to_env() == environ
        seen.add(name)
    assert seen == set(SETTINGS)


def test_a_function_is_told_the_timeout_it_has(template: Template) -> None:
    told = 0
    for _, resource in functions(template):
        variables = resource["Properties"]["Environment"]["Variables"]
        if "TIMEOUT_SECONDS" in variables:
            assert int(variables["TIMEOUT_SECONDS"]) == resource["Properties"]["Timeout"]
            told += 1
    assert told == 4


def test_functions_are_made_alike(template: Template) -> None:
    groups = template.of_type("AWS::Logs::LogGroup")
    roles, logs = set(), set()
    for _, resource in functions(template):
        properties = resource["Properties"]
        assert properties["Runtime"] == "python3.13"
        assert properties["Architectures"] == ["arm64"]
        assert properties["TracingConfig"] == {"Mode": "Active"}
        assert properties["LoggingConfig"]["LogFormat"] == "JSON"
        (log_group,) = refers_to(properties["LoggingConfig"]["LogGroup"])
        assert groups[log_group]["Properties"]["RetentionInDays"] == template.config.log_retention_days
        logs.add(log_group)
        roles |= refers_to(properties["Role"])
    assert len(roles) == len(logs) == len(SETTINGS)


def test_no_role_has_a_managed_policy(template: Template) -> None:
    for role in template.of_type("AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in role["Properties"]
        assert "Policies" not in role["Properties"]


RUN_BY_THEMSELVES = {"Sweeper", "Evaluator", "Pager", "Synthetic"}


def test_what_fails_asynchronously_ends_in_the_ops_queue(template: Template) -> None:
    ops = template.output("OpsDlqUrl")["Ref"]
    configs = template.of_type("AWS::Lambda::EventInvokeConfig")
    owners = set()
    for config in configs.values():
        assert refers_to(config["Properties"]["DestinationConfig"]["OnFailure"]) == {ops}
        owners |= refers_to(config["Properties"]["FunctionName"])
    assert owners == {template.output(f"{name}Function")["Ref"] for name in RUN_BY_THEMSELVES | {"Replay"}}


def test_what_runs_by_itself_runs_every_few_minutes_where_nothing_else_ticks(template: Template) -> None:
    rules = template.of_type("AWS::Events::Rule")
    if template.config.emulated:
        assert rules == {}
        return
    found = {}
    for rule in rules.values():
        (target,) = rule["Properties"]["Targets"]
        (function,) = refers_to(target["Arn"])
        found[function] = rule["Properties"]["ScheduleExpression"]
    expected = dict.fromkeys(RUN_BY_THEMSELVES, "rate(1 minute)") | {"Synthetic": f"rate({EVERY_MINUTES} minutes)"}
    assert found == {template.output(f"{name}Function")["Ref"]: rate for name, rate in expected.items()}


def test_workers_can_never_starve_ingress_in_prod(stage: Callable[[str], Template]) -> None:
    """002.10: an event that finds no ingress may never come again."""
    reserved = {
        name: resource["Properties"].get("ReservedConcurrentExecutions") for name, resource in functions(stage("prod"))
    }
    assert reserved.pop("ingress") >= 100
    assert set(reserved.values()) == {None}


# ------------------------------------------------------------------------------------------------------------- storage


def test_tables_are_on_demand_recoverable_encrypted_and_expire_items(template: Template) -> None:
    tables = dict(template.tables())
    assert set(tables) == {"LedgerTable", "RecoveryTable", "AuditTable", "ControlTable", "RecipientsTable"}
    assert len(template.of_type("AWS::DynamoDB::Table")) == len(tables)
    for properties in tables.values():
        assert properties["BillingMode"] == "PAY_PER_REQUEST"
        assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
        assert properties["SSESpecification"] == {"SSEEnabled": True}
        assert properties["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}


def test_tables_have_the_keys_that_the_code_writes(template: Template) -> None:
    keys = {
        key: [schema["AttributeName"] for schema in properties["KeySchema"]] for key, properties in template.tables()
    }
    indexes = {
        (key, index["IndexName"]): (
            [schema["AttributeName"] for schema in index["KeySchema"]],
            index["Projection"]["ProjectionType"],
        )
        for key, properties in template.tables()
        for index in properties.get("GlobalSecondaryIndexes", [])
    }
    assert keys == {
        "LedgerTable": ["pk"],
        "RecoveryTable": ["pk"],
        "AuditTable": ["pk", "sk"],
        "ControlTable": ["pk"],
        "RecipientsTable": ["pk"],
    }
    assert indexes == {
        ("LedgerTable", "by_request"): (["rq", "received_at"], "KEYS_ONLY"),
        ("LedgerTable", "by_ticket"): (["tk", "received_at"], "KEYS_ONLY"),
        ("LedgerTable", "by_recipient"): (["rc", "received_at"], "KEYS_ONLY"),
        ("RecoveryTable", "work"): (["gpk", "gsk"], "ALL"),
        ("AuditTable", "by_request"): (["request_id", "sk"], "ALL"),
    }


def test_the_bucket_is_private_and_forgets_replay_material_but_never_a_spilled_event(template: Template) -> None:
    (bucket,) = template.of_type("AWS::S3::Bucket").values()
    properties = bucket["Properties"]
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    rules = {rule["Id"]: rule for rule in properties["LifecycleConfiguration"]["Rules"]}
    assert rules["envelopes"]["ExpirationInDays"] == rules["claims"]["ExpirationInDays"] == 120
    assert rules["documents"]["ExpirationInDays"] == rules["parsed"]["ExpirationInDays"] == 120
    assert (rules["replays"]["ExpirationInDays"], rules["replays"]["Prefix"]) == (120, PREFIX)
    assert (rules["documents"]["Prefix"], rules["parsed"]["Prefix"]) == (DOCUMENTS, PARSED)
    assert "ExpirationInDays" not in rules["spill"]
    assert (rules["spill"]["Prefix"], rules["claims"]["Prefix"]) == (SPILL, CLAIMS)
    # What is drained leaves a version and a marker: without an end to both, the list of what waits gets slow.
    assert rules["spill"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}
    assert rules["spill"]["ExpiredObjectDeleteMarker"] is True
    assert "ExpirationInDays" not in rules["uploads"]


def test_what_a_claim_check_names_is_there_for_as_long_as_anything_can_ask_for_it(template: Template) -> None:
    """It is stored before the event is, and no copy is made later: not when a worker reads it, nor for a row, nor by a
    replay on the last day on which an event may be replayed, whose actions may wait their longest.
    """
    (bucket,) = template.of_type("AWS::S3::Bucket").values()
    rules = {rule["Id"]: rule for rule in bucket["Properties"]["LifecycleConfiguration"]["Rules"]}
    kept_seconds = rules["claims"]["ExpirationInDays"] * 24 * 60 * 60
    replayed = TOO_OLD_TO_REPLAY_MS // 1000
    assert kept_seconds > FOURTEEN_DAYS + replayed + DEFAULT_EXPIRES_SECONDS
    assert kept_seconds >= EVENT_EXPIRES_SECONDS  # a row of a whole event ends no later than what it points at


def test_prod_keeps_its_data_and_the_others_leave_nothing_behind(template: Template) -> None:
    kept = template.config.name == "prod"
    stateful = {
        **template.of_type("AWS::DynamoDB::Table"),
        **template.of_type("AWS::S3::Bucket"),
        **template.of_type("AWS::SQS::Queue"),
        **template.of_type("AWS::Logs::LogGroup"),
    }
    for resource in stateful.values():
        assert resource["DeletionPolicy"] == ("Retain" if kept else "Delete")
    for _, properties in template.tables():
        assert properties["DeletionProtectionEnabled"] is kept
    assert bool(template.stack.termination_protection) is kept


# -------------------------------------------------------------------------------------------------------------- intake


def test_what_comes_in_comes_by_a_route_that_ingress_knows(template: Template) -> None:
    routes = {
        route["Properties"]["RouteKey"]
        for route in template.of_type("AWS::ApiGatewayV2::Route").values()
        if " /platform/" not in route["Properties"]["RouteKey"]
    }
    assert routes == {route.value for route in Route if route} | set(PUBLIC_ROUTES)


def test_the_gateway_logs_what_it_refuses_without_an_address_or_a_body(template: Template) -> None:
    (api_stage,) = template.of_type("AWS::ApiGatewayV2::Stage").values()
    written = json.loads(api_stage["Properties"]["AccessLogSettings"]["Format"])
    assert {"status", "route", "request_id", "gateway_error"} <= set(written)
    assert not any("identity" in value or "body" in value for value in written.values())
    assert api_stage["Properties"]["DefaultRouteSettings"]["ThrottlingRateLimit"] > 0


# -------------------------------------------------------------------------------------------------------------- public

PUBLIC_ROUTES = ("GET /status", "GET /health")


def test_what_anybody_may_ask_needs_no_token_and_has_a_throttle_of_its_own(template: Template) -> None:
    found = {
        key: route["Properties"]
        for key, route in template.of_type("AWS::ApiGatewayV2::Route").items()
        if route["Properties"]["RouteKey"] in PUBLIC_ROUTES
    }
    assert {route["RouteKey"] for route in found.values()} == set(PUBLIC_ROUTES)
    (api_stage,) = template.of_type("AWS::ApiGatewayV2::Stage").values()
    settings = api_stage["Properties"]["RouteSettings"]
    assert set(settings) == set(PUBLIC_ROUTES)
    default = api_stage["Properties"]["DefaultRouteSettings"]
    for route in found.values():
        assert route["AuthorizationType"] == "NONE"
        (integration,) = refers_to(route["Target"])
        target = template.body["Resources"][integration]["Properties"]["IntegrationUri"]
        assert refers_to(target) == {template.output("OperatorApiFunction")["Ref"]}
        assert 0 < settings[route["RouteKey"]]["ThrottlingRateLimit"] < default["ThrottlingRateLimit"]
        assert 0 < settings[route["RouteKey"]]["ThrottlingBurstLimit"] < default["ThrottlingBurstLimit"]
    # A stage that comes before its routes is refused.
    assert set(found) <= set(api_stage["DependsOn"])


# ----------------------------------------------------------------------------------------------------------- operators


def operator_routes(template: Template) -> dict[str, dict[str, Any]]:
    return {
        route["Properties"]["RouteKey"]: route["Properties"]
        for route in template.of_type("AWS::ApiGatewayV2::Route").values()
        if " /platform/" in route["Properties"]["RouteKey"]
    }


def user_pool(template: Template) -> dict[str, Any]:
    (pool,) = template.of_type("AWS::Cognito::UserPool").values()
    properties: dict[str, Any] = pool["Properties"]
    return properties


def client_of(template: Template, output: str) -> dict[str, Any]:
    properties: dict[str, Any] = template.body["Resources"][template.output(output)["Ref"]]["Properties"]
    return properties


def test_every_call_of_the_operator_api_has_its_route_and_what_is_no_call_is_answered_too(template: Template) -> None:
    item = "/platform/integrations/{integration_id}/recovery/queue/{recovery_id}"
    job = "/platform/replays/{replay_id}"
    assert set(operator_routes(template)) == {
        "GET /platform/integrations",
        "GET /platform/integrations/{integration_id}",
        "PUT /platform/integrations/{integration_id}/health",
        "GET /platform/integrations/{integration_id}/recovery/queue",
        f"GET {item}",
        f"POST {item}/replay",
        f"POST {item}/dismiss",
        f"POST {item}/root-cause",
        f"POST {item}/note",
        f"POST {item}/cancel",
        "GET /platform/replays",
        "POST /platform/replays",
        f"GET {job}",
        f"POST {job}/approve",
        f"POST {job}/pause",
        f"POST {job}/resume",
        f"POST {job}/cancel",
        "GET /platform/events/{event_id}",
        "GET /platform/trace",
        "GET /platform/rejections",
        "GET /platform/quarantine",
        "POST /platform/quarantine",
        "DELETE /platform/quarantine/{quarantine_id}",
        "GET /platform/switches",
        "PUT /platform/switches/{name+}",
        "GET /platform/audit",
        "GET /platform/incidents",
        "POST /platform/incidents",
        "GET /platform/incidents/{incident_id}",
        *(
            f"POST /platform/incidents/{{incident_id}}/{what}"
            for what in ("ack", "severity", "note", "mitigate", "resolve", "message", "postmortem")
        ),
        "POST /platform/pages/test",
        "ANY /platform/{proxy+}",
    }


def test_nobody_comes_to_the_operator_api_without_a_token_of_the_pool_for_a_client_of_ours(template: Template) -> None:
    ((authorizer, properties),) = [
        (name, resource["Properties"]) for name, resource in template.of_type("AWS::ApiGatewayV2::Authorizer").items()
    ]
    for route in operator_routes(template).values():
        assert route["AuthorizationType"] == "JWT"
        assert route["AuthorizerId"] == {"Ref": authorizer}
    assert properties["IdentitySource"] == ["$request.header.Authorization"]
    clients = {"PeopleClientId", "ViewClientId", "OperateClientId"}
    assert properties["JwtConfiguration"]["Audience"] == [
        template.output(client) for client in ("PeopleClientId", "ViewClientId", "OperateClientId")
    ]
    assert refers_to(properties["JwtConfiguration"]["Issuer"]) == {template.output("UserPoolId")["Ref"], "AWS::Region"}
    assert len(template.of_type("AWS::Cognito::UserPoolClient")) == len(clients)


def test_what_the_gateway_lets_through_goes_to_the_function_that_authorizes(template: Template) -> None:
    (function,) = [resource for name, resource in functions(template) if name == "operator_api"]
    assert template.output("OperatorApiFunction")["Ref"] in {
        name for name, resource in template.body["Resources"].items() if resource is function
    }
    for route in operator_routes(template).values():
        (integration,) = refers_to(route["Target"])
        target = template.body["Resources"][integration]["Properties"]
        assert refers_to(target["IntegrationUri"]) == {template.output("OperatorApiFunction")["Ref"]}
        assert target["PayloadFormatVersion"] == "2.0"
    permissions = [
        permission["Properties"]
        for permission in template.of_type("AWS::Lambda::Permission").values()
        if refers_to(permission["Properties"]["FunctionName"]) == {template.output("OperatorApiFunction")["Ref"]}
    ]
    assert [permission["Principal"] for permission in permissions] == ["apigateway.amazonaws.com"]


def test_people_are_let_in_by_an_administrator_with_a_strong_password_and_a_second_factor(template: Template) -> None:
    pool = user_pool(template)
    assert pool["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"] is True
    assert (pool["MfaConfiguration"], pool["EnabledMfas"]) == ("ON", ["SOFTWARE_TOKEN_MFA"])
    policy = pool["Policies"]["PasswordPolicy"]
    assert policy["MinimumLength"] >= 14
    assert all(policy[f"Require{kind}"] for kind in ("Lowercase", "Uppercase", "Numbers", "Symbols"))
    assert (pool["UserPoolTier"], pool["UserPoolAddOns"]["AdvancedSecurityMode"]) == ("PLUS", "ENFORCED")
    assert pool["AccountRecoverySetting"]["RecoveryMechanisms"] == [{"Name": "verified_email", "Priority": 1}]
    kept = template.config.name == "prod"
    assert pool.get("DeletionProtection", "INACTIVE") == ("ACTIVE" if kept else "INACTIVE")
    (resource,) = template.of_type("AWS::Cognito::UserPool").values()
    assert resource["DeletionPolicy"] == ("Retain" if kept else "Delete")


def test_a_persons_permissions_are_their_groups_and_no_scope_that_anybody_who_signs_in_would_get(
    template: Template,
) -> None:
    groups = {group["Properties"]["GroupName"] for group in template.of_type("AWS::Cognito::UserPoolGroup").values()}
    assert groups == {permission.words for permission in Permission}
    people = client_of(template, "PeopleClientId")
    assert people["AllowedOAuthFlows"] == ["code"]
    assert people["AllowedOAuthScopes"] == ["openid"]
    assert people["CallbackURLs"] == list(LOGIN_REDIRECTS)
    assert all(url.startswith("http://localhost:") for url in LOGIN_REDIRECTS)
    assert people["GenerateSecret"] is False
    assert people["ExplicitAuthFlows"] == ["ALLOW_REFRESH_TOKEN_AUTH"]
    assert people["SupportedIdentityProviders"] == ["COGNITO"]


@pytest.mark.parametrize(
    ("output", "permission"), [("ViewClientId", Permission.VIEW), ("OperateClientId", Permission.OPERATE)]
)
def test_a_machine_has_its_one_scope_and_no_other_way_in(
    template: Template, output: str, permission: Permission
) -> None:
    machine = client_of(template, output)
    assert machine["AllowedOAuthFlows"] == ["client_credentials"]
    assert machine["GenerateSecret"] is True
    assert machine["ExplicitAuthFlows"] == ["ALLOW_REFRESH_TOKEN_AUTH"]  # of which a machine gets none
    ((server, properties),) = [
        (name, resource["Properties"])
        for name, resource in template.of_type("AWS::Cognito::UserPoolResourceServer").items()
    ]
    (scope,) = machine["AllowedOAuthScopes"]
    assert scope == {"Fn::Join": ["", [{"Ref": server}, f"/{permission.name.lower()}"]]}
    # The resource's `Ref` is its identifier.
    assert f"{properties['Identifier']}/{permission.name.lower()}" == permission.value
    assert {each["ScopeName"] for each in properties["Scopes"]} == {"view", "operate"}


def test_a_token_of_somebody_who_lost_their_permission_soon_ends(template: Template) -> None:
    for client in template.of_type("AWS::Cognito::UserPoolClient").values():
        properties = client["Properties"]
        assert (properties["AccessTokenValidity"], properties["TokenValidityUnits"]["AccessToken"]) == (30, "minutes")
        assert properties["PreventUserExistenceErrors"] == "ENABLED"
        assert properties["EnableTokenRevocation"] is True


def test_no_secret_of_a_client_is_in_the_template(template: Template) -> None:
    assert "ClientSecret" not in json.dumps(template.body)


# ------------------------------------------------------------------------------------------------------------ switches


def test_every_switch_of_the_design_is_deployed_with_its_everyday_value(template: Template) -> None:
    path = f"/holdfast/{template.config.name}/switches/"
    assert template.output("SwitchesPath") == path.rstrip("/")
    deployed = {
        parameter["Properties"]["Name"].removeprefix(path): parameter["Properties"]["Value"]
        for parameter in template.of_type("AWS::SSM::Parameter").values()
    }
    assert deployed == {
        "mode": "live",
        "auto_reply": "on",
        "classifier": "llm",
        "optional_calls": "on",
        "replay": "on",
        "disabled_integrations": "none",
        "replay_blocked_integrations": "none",
        "limits/helpdesk": "1",
        "limits/llm": "1",
        "limits/payments": "1",
        "limits/ocr": "1",
        "limits/parser": "1",
        "limits/sms": "1",
        "limits/email": "1",
    }


@pytest.mark.parametrize(
    ("switch", "good", "bad"),
    [
        ("mode", ["live", "route_only", "shadow", "manual", "hold"], ["Live", "livehold", ""]),
        ("auto_reply", ["on", "off"], ["true", "offf", "On"]),
        ("classifier", ["llm", "rules"], ["gpt"]),
        ("disabled_integrations", ["none", "all", "helpdesk", "helpdesk,llm"], ["helpdesk;llm", ",", ""]),
        ("limits/helpdesk", ["0", "1", "0.25"], ["2", "-1", "50%", "1.5"]),
    ],
)
def test_ssm_itself_refuses_a_value_that_no_reader_knows(switch: str, good: list[str], bad: list[str]) -> None:
    (pattern,) = [each.pattern for each in SWITCHES if each.name == switch]
    assert all(re.search(pattern, value) for value in good)
    assert not any(re.search(pattern, value) for value in bad)


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.name)
def test_a_switch_that_is_set_keeps_the_pattern_with_which_it_was_deployed(switch: Switch) -> None:
    assert (switch.value, switch.pattern) == (everyday(switch.name), pattern_of(switch.name))


# ------------------------------------------------------------------------------------------------------------- grants

# What each function may do, on what. Read it as the expectation: an action more or less is a decision to be made here.
GRANTS: dict[str, dict[str, set[str]]] = {
    "ingress": {
        "events": {"sqs:SendMessage"},
        "Ledger": {"dynamodb:GetItem"},
        "Recovery": {"dynamodb:GetItem"},
        "Bucket/claims/*": {"s3:PutObject"},
        "Bucket/spill/*": {"s3:PutObject"},
        "sources/*": {"ssm:GetParameter"},
    },
    "worker": {
        "Ledger": {"dynamodb:BatchGetItem", "dynamodb:UpdateItem"},
        "Recovery": {"dynamodb:GetItem", "dynamodb:PutItem"},
        "Audit": {"dynamodb:PutItem"},
        "Control": {"dynamodb:BatchGetItem", "dynamodb:UpdateItem"},
        "Recipients": {"dynamodb:GetItem", "dynamodb:UpdateItem"},
        "ses:identity/*": {"ses:SendEmail"},
        "ses:configuration-set/*": {"ses:SendEmail"},
        "Bucket": {"s3:ListBucket"},
        "Bucket/envelopes/*": {"s3:GetObject", "s3:PutObject"},
        "Bucket/claims/*": {"s3:GetObject"},
        "Bucket/documents/*": {"s3:GetObject"},
        "Bucket/parsed/*": {"s3:PutObject"},
        "integrations/*": {"ssm:GetParameter"},
        "switches": {"ssm:GetParametersByPath"},
        "switches/*": {"ssm:GetParametersByPath"},
        "events": {"consume"},
        "retries": {"consume"},
        "replays": {"consume"},
    },
    "triage": {
        "Ledger": {"dynamodb:BatchGetItem"},
        "Recovery": {"dynamodb:GetItem", "dynamodb:PutItem"},
        "Audit": {"dynamodb:PutItem"},
        "Bucket/envelopes/*": {"s3:PutObject"},
        "events-dlq": {"consume"},
        "retries-dlq": {"consume"},
        "replays-dlq": {"consume"},
    },
    "sweeper": {
        "Recovery/index/work": {"dynamodb:Query"},
        "Recovery": {"dynamodb:GetItem", "dynamodb:PutItem"},
        "Audit": {"dynamodb:PutItem"},
        "Control": {"dynamodb:BatchGetItem", "dynamodb:GetItem"},
        "ReplayFunction": {"lambda:InvokeFunction"},
        "Bucket": {"s3:ListBucket"},
        "Bucket/spill/*": {"s3:GetObject", "s3:DeleteObject"},
        "Bucket/envelopes/*": {"s3:PutObject"},
        "events": {"sqs:SendMessage"},
        "retries": {"sqs:SendMessage"},
        "replays": {"sqs:SendMessage"},
        "ops-dlq": {"send"},
        "switches": {"ssm:GetParametersByPath"},
        "switches/*": {"ssm:GetParametersByPath"},
    },
    "replay": {
        "Ledger": {"dynamodb:BatchGetItem"},
        "Recovery/index/work": {"dynamodb:Query"},
        "Recovery": {"dynamodb:BatchGetItem", "dynamodb:PutItem"},
        "Audit": {"dynamodb:PutItem"},
        "Control": {
            "dynamodb:BatchGetItem",
            "dynamodb:ConditionCheckItem",
            "dynamodb:GetItem",
            "dynamodb:PutItem",
        },
        "Recipients": {"dynamodb:GetItem"},
        "Bucket": {"s3:ListBucket"},
        "Bucket/replays/*": {"s3:GetObject", "s3:PutObject"},
        "events": {"sqs:GetQueueAttributes"},
        "replays": {"sqs:SendMessage"},
        "ops-dlq": {"send"},
        "switches": {"ssm:GetParametersByPath"},
        "switches/*": {"ssm:GetParametersByPath"},
    },
    "operator_api": {
        "Ledger": {"dynamodb:BatchGetItem"},
        "Ledger/index/by_request": {"dynamodb:Query"},
        "Ledger/index/by_ticket": {"dynamodb:Query"},
        "Ledger/index/by_recipient": {"dynamodb:Query"},
        "Recovery/index/work": {"dynamodb:Query"},
        "Recovery": {"dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:PutItem"},
        "Audit": {"dynamodb:PutItem", "dynamodb:Query"},
        "Audit/index/by_request": {"dynamodb:Query"},
        "Logs of ingress": {"logs:FilterLogEvents"},
        "Control": {"dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"},
        "Bucket": {"s3:ListBucket"},
        "Bucket/replays/*": {"s3:GetObject"},
        "ReplayFunction": {"lambda:GetFunctionConfiguration", "lambda:InvokeFunction"},
        "replays": {"sqs:SendMessage"},
        "switches": {"ssm:GetParametersByPath"},
        "switches/*": {"ssm:GetParameterHistory", "ssm:GetParametersByPath", "ssm:PutParameter"},
        "*": {"ssm:DescribeParameters"},
        "IngressFunction": {"lambda:GetFunctionConfiguration"},
        "WorkerFunction": {"lambda:GetFunctionConfiguration"},
        "TriageFunction": {"lambda:GetFunctionConfiguration"},
        "SweeperFunction": {"lambda:GetFunctionConfiguration"},
    },
    "evaluator": {
        "Control": {"dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"},
        "Audit": {"dynamodb:PutItem"},
        "ops-dlq": {"send"},
        "switches": {"ssm:GetParametersByPath"},
        "switches/*": {"ssm:GetParameterHistory", "ssm:GetParametersByPath", "ssm:PutParameter"},
        "sources": {"ssm:GetParametersByPath"},
        "sources/*": {"ssm:GetParametersByPath"},
        "Logs of ingress": {"logs:FilterLogEvents"},
    },
    "pager": {
        "Control": {"dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:PutItem"},
        "Audit": {"dynamodb:PutItem"},
        "Recovery/index/work": {"dynamodb:Query"},
        "events": {"sqs:GetQueueAttributes"},
        "retries": {"sqs:GetQueueAttributes"},
        "replays": {"sqs:GetQueueAttributes"},
        "OncallTopicArn": {"sns:Publish"},
        "IngressFunction": {"lambda:GetFunctionConfiguration"},
        "WorkerFunction": {"lambda:GetFunctionConfiguration"},
        "TriageFunction": {"lambda:GetFunctionConfiguration"},
        "SweeperFunction": {"lambda:GetFunctionConfiguration"},
        "ReplayFunction": {"lambda:GetFunctionConfiguration"},
        "EvaluatorFunction": {"lambda:GetFunctionConfiguration"},
        "OperatorApiFunction": {"lambda:GetFunctionConfiguration"},
        "*": {"ssm:DescribeParameters"},
        "switches": {"ssm:GetParametersByPath"},
        "switches/*": {"ssm:GetParameterHistory", "ssm:GetParametersByPath", "ssm:PutParameter"},
        "oncall": {"ssm:GetParametersByPath"},
        "oncall/*": {"ssm:GetParametersByPath"},
        "pages": {"consume"},
        "ops-dlq": {"send"},
    },
    "synthetic": {
        "sources/synthetic": {"ssm:GetParameter"},
        "ops-dlq": {"send"},
    },
}
CONSUME = {
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:GetQueueUrl",
    "sqs:ReceiveMessage",
}
SEND = {"sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"}
EVERY_FUNCTION = {
    "Logs": {"logs:CreateLogStream", "logs:PutLogEvents"},
    "*": {"xray:PutTelemetryRecords", "xray:PutTraceSegments"},
}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _whose_log(template: Template, log_group: str) -> str:
    (owner,) = [
        name
        for name, resource in functions(template)
        if log_group in refers_to(resource["Properties"]["LoggingConfig"])
    ]
    return f"Logs of {owner}"


def _spelled(template: Template, arn: Any) -> str:
    """A policy's resource in the words of `GRANTS`."""
    match arn:
        case str():
            return arn
        case {"Fn::GetAtt": [str(logical_id), "Arn"]}:
            properties = template.body["Resources"][logical_id]["Properties"]
            if "QueueName" in properties:
                return str(properties["QueueName"]).removeprefix(f"holdfast-{template.config.name}-")
            if template.body["Resources"][logical_id]["Type"] == "AWS::Logs::LogGroup":
                return _whose_log(template, logical_id)
            (word,) = [
                key.removesuffix("Table")
                for key in template.body["Outputs"]
                if template.output(key) == {"Ref": logical_id}
            ]
            return str(word)
        case {"Fn::Join": ["", list(parts)]}:
            text = "".join(part if isinstance(part, str) else f"<{_spelled(template, part)}>" for part in parts)
            if ":parameter/" in text:
                return text.split(f":parameter/holdfast/{template.config.name}/", 1)[1]
            if ":log-group:" in text:
                return _whose_log(template, text.rpartition(":log-group:")[2].strip("<>"))
            if ":ses:" in text:
                return "ses:" + text.rpartition(":")[2]
            return text.replace("<", "").replace(">", "")
        case {"Ref": str(name)}:
            outputs = [key for key in template.body["Outputs"] if template.output(key) == arn]
            return outputs[0] if outputs else name
    raise AssertionError(f"not an ARN: {arn}")


def granted(template: Template) -> dict[str, dict[str, set[str]]]:
    role_of = {next(iter(refers_to(r["Properties"]["Role"]))): name for name, r in functions(template)}
    found: dict[str, dict[str, set[str]]] = {name: {} for name in role_of.values()}
    for policy in template.of_type("AWS::IAM::Policy").values():
        (role,) = refers_to(policy["Properties"]["Roles"])
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            assert statement["Effect"] == "Allow"
            for resource in _listed(statement["Resource"]):
                name = role_of[role]
                spelled = _spelled(template, resource)
                word = "Logs" if spelled == f"Logs of {name}" else spelled  # its own
                actions = found[name].setdefault(word, set())
                actions |= set(_listed(statement["Action"]))
    return found


def _expected(grants: dict[str, set[str]]) -> dict[str, set[str]]:
    written_out = {
        resource: CONSUME if actions == {"consume"} else SEND if actions == {"send"} else actions
        for resource, actions in grants.items()
    }
    return {
        resource: written_out.get(resource, set()) | EVERY_FUNCTION.get(resource, set())
        for resource in {**written_out, **EVERY_FUNCTION}
    }


@pytest.mark.parametrize("name", list(SETTINGS))
def test_each_function_may_do_exactly_what_is_written_here(name: str, stage: Callable[[str], Template]) -> None:
    assert granted(stage("prod"))[name] == _expected(GRANTS[name])


@pytest.mark.parametrize("name", list(SETTINGS))
def test_on_the_local_stage_only_reads_by_path_are_wider(name: str, stage: Callable[[str], Template]) -> None:
    expected = _expected(GRANTS[name])
    for path in ("switches", "sources", "oncall"):
        if expected.pop(path, None):
            expected["*"] = expected["*"] | {"ssm:GetParametersByPath"}
            others = expected.pop(f"{path}/*") - {"ssm:GetParametersByPath"}
            if others:
                expected[f"{path}/*"] = others
    assert granted(stage("local"))[name] == expected


def test_no_action_is_a_wildcard(template: Template) -> None:
    for grants in granted(template).values():
        assert not [action for actions in grants.values() for action in actions if "*" in action]


def test_a_wildcard_grant_without_a_reason_cannot_be_written() -> None:
    stack = new_stack(STAGES["dev"])
    (worker,) = [
        each for each in stack.node.find_all() if isinstance(each, PythonFunction) and each.node.id == "Worker"
    ]
    with pytest.raises(ValueError, match="needs a reason"):
        worker.allow(["dynamodb:GetItem"], ["*"])


# ------------------------------------------------------------------------------------------------------------ checkers


def _findings(stack: Stack, pack: type[AwsSolutionsChecks | ServerlessChecks]) -> list[str]:
    report = pack().validate_scope(stack)
    return [f"{violation.rule_name}: {violation.description}" for violation in report.violations]


@pytest.mark.parametrize("pack", [AwsSolutionsChecks, ServerlessChecks])
def test_cdk_nag_finds_nothing(template: Template, pack: type[AwsSolutionsChecks | ServerlessChecks]) -> None:
    assert _findings(template.stack, pack) == []


def test_cdk_nag_would_find_a_wildcard_that_nobody_gave_a_reason_for() -> None:
    stack = new_stack(STAGES["dev"])
    (worker,) = [
        each for each in stack.node.find_all() if isinstance(each, PythonFunction) and each.node.id == "Worker"
    ]
    worker.role.add_to_policy(iam.PolicyStatement(actions=["dynamodb:*"], resources=["*"]))
    assert any("IAM5" in finding for finding in _findings(stack, AwsSolutionsChecks))


def test_cfn_lint_finds_nothing_in_any_stage(stage: Callable[[str], Template], tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.template.json" for name in STAGES]
    for path, name in zip(paths, STAGES, strict=True):
        path.write_text(json.dumps(stage(name).body))
    run = subprocess.run(
        [str(Path(sys.executable).parent / "cfn-lint"), *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "")


# ------------------------------------------------------------------------------------------------------ outputs, stages


def test_outputs_are_what_the_command_line_reads(template: Template) -> None:
    assert set(template.body["Outputs"]) == OUTPUTS


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_an_output_that_a_page_sends_people_to_is_there(page: Path) -> None:
    """Whoever deploys subscribes a topic by it: a name that is gone would leave nobody paged."""
    lines = [
        line for line in page.read_text(encoding="utf-8").splitlines() if re.search(r"holdfast( --\w+ \w+)* env", line)
    ]
    assert set(re.findall(r"\b[A-Z]\w+(?:Arns?|Urls?|Id)\b", "\n".join(lines))) <= OUTPUTS


def _differences(left: Any, right: Any, path: str) -> Iterator[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in left.keys() | right.keys():
            yield from _differences(left.get(key), right.get(key), f"{path}.{key}")
    elif left != right:
        yield path


def test_the_local_stage_differs_from_dev_in_what_is_listed_here_and_nothing_else(
    stage: Callable[[str], Template],
) -> None:
    def comparable(template: Template) -> dict[str, Any]:
        text = json.dumps(template.body["Resources"]).replace(f"holdfast-{template.config.name}", "holdfast-STAGE")
        resources: dict[str, Any] = json.loads(text.replace(f"/holdfast/{template.config.name}/", "/holdfast/STAGE/"))
        return resources

    local, dev = comparable(stage("local")), comparable(stage("dev"))
    assert local.keys() - dev.keys() == set()
    # No schedule (the local stack ticks by itself), and no policy that refuses plain HTTP or lets a schedule in.
    assert {dev[key]["Type"] for key in dev.keys() - local.keys()} == {
        "AWS::Events::Rule",
        "AWS::Lambda::Permission",
        "AWS::SQS::QueuePolicy",
        "AWS::S3::BucketPolicy",
        "AWS::SNS::TopicPolicy",
        # The two windows of an alarm that needs both.
        "AWS::CloudWatch::Alarm",
    }
    found = {
        f"{local[key]['Type']}{place}"
        for key in local.keys() & dev.keys()
        for place in _differences(local[key].get("Properties"), dev[key].get("Properties"), "")
    }
    assert found == {
        # The emulator computes neither metric math nor M of N, knows no composites, and reads no metrics from logs: one
        # derived metric per alarm, on which it is 1.
        "AWS::CloudWatch::Alarm.AlarmRule",
        "AWS::CloudWatch::Alarm.ComparisonOperator",
        "AWS::CloudWatch::Alarm.Dimensions",
        "AWS::CloudWatch::Alarm.DatapointsToAlarm",
        "AWS::CloudWatch::Alarm.EvaluationPeriods",
        "AWS::CloudWatch::Alarm.MetricName",
        "AWS::CloudWatch::Alarm.Metrics",
        "AWS::CloudWatch::Alarm.Namespace",
        "AWS::CloudWatch::Alarm.Period",
        "AWS::CloudWatch::Alarm.Statistic",
        "AWS::CloudWatch::Alarm.Threshold",
        "AWS::CloudWatch::Alarm.TreatMissingData",
        # The stage's name, by which functions count.
        "AWS::CloudWatch::Dashboard.DashboardBody.Fn::Join",
        # Reads of parameters by path; what exactly is tested with the grants.
        "AWS::IAM::Policy.PolicyDocument.Statement",
        # Numbers: the same waits on a shorter clock.
        "AWS::Lambda::Function.Environment.Variables.MAX_RECEIVES",
        "AWS::Lambda::Function.Environment.Variables.PARAMETERS_PATH",
        "AWS::Lambda::Function.Environment.Variables.STAGE",
        "AWS::Lambda::Function.Environment.Variables.TIMEOUT_SECONDS",
        "AWS::Lambda::Function.Environment.Variables.TIME_SCALE",
        "AWS::Lambda::Function.Timeout",
        "AWS::Logs::LogGroup.RetentionInDays",
        "AWS::SQS::Queue.RedrivePolicy.maxReceiveCount",
        "AWS::SQS::Queue.VisibilityTimeout",
        # The queue of pages lets topics in; elsewhere it refuses plain HTTP as well.
        "AWS::SQS::QueuePolicy.PolicyDocument.Statement",
    }
