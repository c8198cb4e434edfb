"""How operators come in: who they are (user pool), what the gateway lets through, and the function that answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aws_cdk import Acknowledgment, Aws, Duration, RemovalPolicy, Validations
from aws_cdk import aws_apigatewayv2 as apigw
from aws_cdk import aws_apigatewayv2_authorizers as authorizers
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_cognito as cognito
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from functions.operator_api.settings import OPERATE, RESOURCE_SERVER, VIEW, OperatorApiSettings
from infra.config import LOGIN_REDIRECTS, StageConfig
from infra.intake import Intake
from infra.processing import Processing
from infra.python_function import CodeFor, PythonFunction
from infra.recovery import Recovery
from infra.storage import BY_REQUEST_INDEX, TRACE_INDEXES, WORK_INDEX, Storage

_GET, _POST, _PUT, _DELETE = apigw.HttpMethod.GET, apigw.HttpMethod.POST, apigw.HttpMethod.PUT, apigw.HttpMethod.DELETE
_ITEM = "/platform/integrations/{integration_id}/recovery/queue/{recovery_id}"
_JOB = "/platform/replays/{replay_id}"
_INCIDENT = "/platform/incidents/{incident_id}"

CALLS: dict[str, list[apigw.HttpMethod]] = {
    "/platform/integrations": [_GET],
    "/platform/integrations/{integration_id}": [_GET],
    "/platform/integrations/{integration_id}/health": [_PUT],
    "/platform/integrations/{integration_id}/recovery/queue": [_GET],
    _ITEM: [_GET],
    f"{_ITEM}/replay": [_POST],
    f"{_ITEM}/dismiss": [_POST],
    f"{_ITEM}/root-cause": [_POST],
    f"{_ITEM}/note": [_POST],
    f"{_ITEM}/cancel": [_POST],
    "/platform/replays": [_GET, _POST],
    _JOB: [_GET],
    f"{_JOB}/approve": [_POST],
    f"{_JOB}/pause": [_POST],
    f"{_JOB}/resume": [_POST],
    f"{_JOB}/cancel": [_POST],
    "/platform/events/{event_id}": [_GET],
    "/platform/trace": [_GET],
    "/platform/rejections": [_GET],
    "/platform/quarantine": [_GET, _POST],
    "/platform/quarantine/{quarantine_id}": [_DELETE],
    "/platform/switches": [_GET],
    "/platform/switches/{name+}": [_PUT],
    "/platform/audit": [_GET],
    "/platform/incidents": [_GET, _POST],
    _INCIDENT: [_GET],
    f"{_INCIDENT}/ack": [_POST],
    f"{_INCIDENT}/severity": [_POST],
    f"{_INCIDENT}/note": [_POST],
    f"{_INCIDENT}/mitigate": [_POST],
    f"{_INCIDENT}/resolve": [_POST],
    f"{_INCIDENT}/message": [_POST],
    f"{_INCIDENT}/postmortem": [_POST],
    "/platform/pages/test": [_POST],
}
"""Every call, by path. A switch's name may hold slashes: `limits/helpdesk`."""

PUBLIC_CALLS = ("/status", "/health")
"""What anybody may ask (GET): no token, and a throttle of its own."""

_ELSE = "/platform/{proxy+}"
"""What is no call is answered by the function too: so that whoever may come in reads a problem document."""

_TOKEN_LIFE = Duration.minutes(30)
"""A token cannot be called back. Who loses a permission has it until theirs ends."""

_SHIFT = Duration.hours(12)
"""For how long a person need not sign in again."""


@dataclass(frozen=True, slots=True)
class Clients:
    """Who may ask the pool for tokens."""

    people: cognito.UserPoolClient
    """Public, for the command line: authorization code with PKCE. It gives no scope of ours: a person's permissions
    are their groups.
    """
    view: cognito.UserPoolClient
    operate: cognito.UserPoolClient


class OperatorApi(Construct):
    """`/platform/...` on the API of `intake`. The gateway authenticates, the function authorizes."""

    def __init__(
        self,
        scope: Construct,
        *,
        config: StageConfig,
        code_for: CodeFor,
        storage: Storage,
        intake: Intake,
        processing: Processing,
        recovery: Recovery,
        deployed: Sequence[PythonFunction],
    ) -> None:
        """`deployed` are functions whose deploys the timeline of an incident tells of."""
        super().__init__(scope, "Operators")
        self._config = config
        self.pool = self._pool()
        self.clients = self._clients()
        self.domain = self.pool.add_domain(
            "Domain",
            # One name space for all of AWS: the account makes it ours.
            cognito_domain=cognito.CognitoDomainOptions(domain_prefix=f"holdfast-{config.name}-{Aws.ACCOUNT_ID}"),
        )
        self.api = self._function(code_for, storage, intake, processing, recovery, deployed)
        self._routes(intake)

    def _pool(self) -> cognito.UserPool:
        config = self._config
        pool = cognito.UserPool(
            self,
            "People",
            user_pool_name=f"holdfast-{config.name}",
            self_sign_up_enabled=False,
            sign_in_aliases=cognito.SignInAliases(username=True),
            sign_in_case_sensitive=False,
            standard_attributes=cognito.StandardAttributes(
                email=cognito.StandardAttribute(required=True, mutable=True)
            ),
            password_policy=cognito.PasswordPolicy(
                min_length=14,
                require_lowercase=True,
                require_uppercase=True,
                require_digits=True,
                require_symbols=True,
                temp_password_validity=Duration.days(3),
            ),
            mfa=cognito.Mfa.REQUIRED,
            mfa_second_factor=cognito.MfaSecondFactor(otp=True, sms=False),
            account_recovery=cognito.AccountRecovery.EMAIL_ONLY,
            feature_plan=cognito.FeaturePlan.PLUS,
            standard_threat_protection_mode=cognito.StandardThreatProtectionMode.FULL_FUNCTION,
            deletion_protection=config.retain,
            removal_policy=RemovalPolicy.RETAIN if config.retain else RemovalPolicy.DESTROY,
        )
        for permission, what in ((VIEW, "look at everything"), (OPERATE, "look at and change everything")):
            pool.add_group(f"May-{permission}", group_name=f"{RESOURCE_SERVER}.{permission}", description=f"May {what}")
        return pool

    def _clients(self) -> Clients:
        view = cognito.ResourceServerScope(scope_name=VIEW, scope_description="Look at everything")
        operate = cognito.ResourceServerScope(scope_name=OPERATE, scope_description="Look at and change everything")
        server = self.pool.add_resource_server(
            "Permissions", identifier=RESOURCE_SERVER, user_pool_resource_server_name="Holdfast", scopes=[view, operate]
        )
        people = self.pool.add_client(
            "Cli",
            user_pool_client_name="command-line",
            generate_secret=False,
            # No password ever reaches the command line: what is not named here but the refreshing of tokens is off.
            auth_flows=cognito.AuthFlow(user_srp=False),
            o_auth=cognito.OAuthSettings(
                flows=cognito.OAuthFlows(authorization_code_grant=True),
                scopes=[cognito.OAuthScope.OPENID],
                callback_urls=list(LOGIN_REDIRECTS),
            ),
            supported_identity_providers=[cognito.UserPoolClientIdentityProvider.COGNITO],
            prevent_user_existence_errors=True,
            enable_token_revocation=True,
            access_token_validity=_TOKEN_LIFE,
            id_token_validity=_TOKEN_LIFE,
            refresh_token_validity=_SHIFT,
        )

        def machine(name: str, scope: cognito.ResourceServerScope) -> cognito.UserPoolClient:
            return self.pool.add_client(
                f"Machine-{name}",
                user_pool_client_name=f"machine-{name}",
                generate_secret=True,
                auth_flows=cognito.AuthFlow(user_srp=False),
                o_auth=cognito.OAuthSettings(
                    flows=cognito.OAuthFlows(client_credentials=True),
                    scopes=[cognito.OAuthScope.resource_server(server, scope)],
                ),
                prevent_user_existence_errors=True,
                enable_token_revocation=True,
                access_token_validity=_TOKEN_LIFE,
            )

        return Clients(people=people, view=machine(VIEW, view), operate=machine(OPERATE, operate))

    def _function(
        self,
        code_for: CodeFor,
        storage: Storage,
        intake: Intake,
        processing: Processing,
        recovery: Recovery,
        deployed: Sequence[PythonFunction],
    ) -> PythonFunction:
        config = self._config
        function = PythonFunction(
            self,
            "operator_api",
            config=config,
            code_for=code_for,
            settings=OperatorApiSettings(
                stage=config.name,
                ledger_table=storage.ledger.table_name,
                recovery_table=storage.recovery.table_name,
                audit_table=storage.audit.table_name,
                control_table=storage.control.table_name,
                replays_queue_url=processing.replays.queue.queue_url,
                bucket=storage.bucket.bucket_name,
                replay_function=recovery.replay.function.function_name,
                switches_path=config.switches_path,
                parameters_path=config.parameters_path,
                functions=",".join(one.function.function_name for one in deployed),
                door_log_group=intake.ingress.log_group.log_group_name,
                time_scale=config.time_scale,
            ),
            # The gateway gives up after 30 seconds.
            timeout_seconds=25,
            # It buys processor time: a person waits, often for a cold start with pydantic in it.
            memory_mb=1024,
        )
        function.allow(["dynamodb:Query"], [f"{storage.recovery.table_arn}/index/{WORK_INDEX}"])
        function.allow(["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:PutItem"], [storage.recovery.table_arn])
        function.allow(["dynamodb:PutItem", "dynamodb:Query"], [storage.audit.table_arn])
        # For whoever asks what happened: events by what people have in hand, and what each request has done.
        function.allow(["dynamodb:BatchGetItem"], [storage.ledger.table_arn])
        function.allow(
            ["dynamodb:Query"],
            [
                f"{storage.audit.table_arn}/index/{BY_REQUEST_INDEX}",
                *(f"{storage.ledger.table_arn}/index/{name}" for name, _ in TRACE_INDEXES),
            ],
        )
        # What the door refused, and what it let in that no worker has taken up yet, stands in its log alone.
        function.allow_log(intake.ingress.log_group, config=config)
        # An operator's word on an integration's health goes into the item that the machine writes, too: by an update.
        function.allow(
            ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"],
            [storage.control.table_arn],
        )
        # Of the whole bucket: narrowed to a prefix, S3 would answer 403 for a record that is not there.
        function.allow(["s3:ListBucket"], [storage.bucket.bucket_arn])
        function.allow(
            ["s3:GetObject"],
            [storage.bucket.arn_for_objects("replays/*")],
            why_wildcard="The plan and the records of each bulk replay, under this prefix",
        )
        function.allow(["lambda:InvokeFunction"], [recovery.replay.function.function_arn])
        function.allow(["sqs:SendMessage"], [processing.replays.queue.queue_arn])
        function.allow_switches(config=config, write=True, history=True)
        # The timeline of an incident: names, times and authors of parameters, never what they say; and deploys.
        function.allow(["ssm:DescribeParameters"], ["*"], why_wildcard="DescribeParameters knows no resource")
        function.allow(
            ["lambda:GetFunctionConfiguration"],
            [one.function.function_arn for one in deployed],
        )
        return function

    def _routes(self, intake: Intake) -> None:
        authorizer = authorizers.HttpUserPoolAuthorizer(
            "Operators",
            self.pool,
            user_pool_clients=[self.clients.people, self.clients.view, self.clients.operate],
        )
        integration = integrations.HttpLambdaIntegration(
            # One permission for the whole API: one per route would fill the function's policy of 20 KB.
            "Operators",
            self.api.function,
            scope_permission_to_route=False,
        )
        for path, methods in {**CALLS, _ELSE: [apigw.HttpMethod.ANY]}.items():
            intake.api.add_routes(path=path, methods=methods, integration=integration, authorizer=authorizer)
        self._public_routes(intake, integration)
        (permission,) = [
            each
            for each in intake.api.node.find_all()
            if isinstance(each, lambda_.CfnPermission) and each.function_name == self.api.function.function_arn
        ]
        # Else it would be named after the first route and the stage.
        permission.override_logical_id("OperatorApiPermission")

    def _public_routes(self, intake: Intake, integration: integrations.HttpLambdaIntegration) -> None:
        stage = intake.stage.node.default_child
        assert isinstance(stage, apigw.CfnStage)  # noqa: S101 - the L2 stage wraps exactly this
        throttles = {}
        for path in PUBLIC_CALLS:
            (route,) = intake.api.add_routes(path=path, methods=[_GET], integration=integration)
            Validations.of(route).acknowledge(
                Acknowledgment(
                    id="AwsSolutions-APIG4",
                    reason="Public on purpose: it names no tenant and no provider, and reads no table for each request",
                )
            )
            # The gateway takes settings of routes that it knows, and no others.
            intake.stage.node.add_dependency(route)
            throttles[f"GET {path}"] = {
                "ThrottlingRateLimit": self._config.public_rate_per_second,
                "ThrottlingBurstLimit": self._config.public_burst,
            }
        stage.route_settings = throttles
