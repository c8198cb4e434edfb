"""What must not be lost: the tables and the bucket."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Duration, RemovalPolicy, Validations
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.config import StageConfig

TTL_ATTRIBUTE = "ttl"
"""Epoch seconds after which DynamoDB may remove an item."""

WORK_INDEX = "work"
"""Of the recovery table: open rows by what they wait for (`gpk`) and when they are due (`gsk`)."""

BY_REQUEST_INDEX = "by_request"
"""Of the audit table: a request's events in their order."""

TRACE_INDEXES = (("by_request", "rq"), ("by_ticket", "tk"), ("by_recipient", "rc"))
"""Of the ledger: what people look an event up by. Each costs a write unit when an event that has it is claimed, and
nothing when it is settled: they hold keys only, and these do not change.
"""

_KEPT = Duration.days(120)
"""As long as the messages that a stored decision names. The oldest event that may be replayed is 30 days old."""


class Storage(Construct):
    """Five tables with one key each, and one bucket with a prefix per purpose."""

    def __init__(self, scope: Construct, *, config: StageConfig) -> None:
        super().__init__(scope, "Storage")
        self._config = config
        self.ledger = self._table("Ledger")
        for index_name, key in TRACE_INDEXES:
            self.ledger.add_global_secondary_index(
                index_name=index_name,
                partition_key=_string(key),
                sort_key=dynamodb.Attribute(name="received_at", type=dynamodb.AttributeType.NUMBER),
                projection_type=dynamodb.ProjectionType.KEYS_ONLY,
            )
        self.recovery = self._table("Recovery")
        self.recovery.add_global_secondary_index(
            index_name=WORK_INDEX,
            partition_key=_string("gpk"),
            sort_key=_string("gsk"),
            projection_type=dynamodb.ProjectionType.ALL,
        )
        self.audit = self._table("Audit", sort_key="sk")
        self.audit.add_global_secondary_index(
            index_name=BY_REQUEST_INDEX,
            partition_key=_string("request_id"),
            sort_key=_string("sk"),
            projection_type=dynamodb.ProjectionType.ALL,
        )
        self.control = self._table("Control")
        self.recipients = self._table("Recipients")
        self.bucket = self._bucket()

    def _table(self, name: str, *, sort_key: str | None = None) -> dynamodb.Table:
        return dynamodb.Table(
            self,
            name,
            partition_key=_string("pk"),
            sort_key=_string(sort_key) if sort_key else None,
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            encryption=dynamodb.TableEncryption.AWS_MANAGED,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            time_to_live_attribute=TTL_ATTRIBUTE,
            deletion_protection=self._config.retain,
            removal_policy=RemovalPolicy.RETAIN if self._config.retain else RemovalPolicy.DESTROY,
        )

    def _bucket(self) -> s3.Bucket:
        config = self._config
        bucket = s3.Bucket(
            self,
            "Bucket",
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=not config.emulated,
            versioned=True,
            removal_policy=RemovalPolicy.RETAIN if config.retain else RemovalPolicy.DESTROY,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id=prefix.rstrip("/"),
                    prefix=prefix,
                    expiration=_KEPT,
                    noncurrent_version_expiration=Duration.days(1),
                )
                for prefix in ("envelopes/", "claims/", "documents/", "parsed/", "replays/")
            ]
            + [
                # A spilled event is an accepted one: it leaves by being sent to the queue, never by age. What is sent
                # leaves a version and a marker behind; the marker goes once it is all that is left of an object.
                s3.LifecycleRule(
                    id="spill",
                    prefix="spill/",
                    noncurrent_version_expiration=Duration.days(1),
                    expired_object_delete_marker=True,
                ),
                s3.LifecycleRule(id="uploads", abort_incomplete_multipart_upload_after=Duration.days(1)),
            ],
        )
        Validations.of(bucket).acknowledge(
            Acknowledgment(
                id="AwsSolutions-S1",
                reason="Only the functions of this stack read and write here, and audit says for which event; "
                "a server access log would need a second bucket with the same finding",
            )
        )
        if config.emulated:
            Validations.of(bucket).acknowledge(
                Acknowledgment(id="AwsSolutions-S10", reason="The emulator speaks plain HTTP on the loopback interface")
            )
        return bucket


def _string(name: str) -> dynamodb.Attribute:
    return dynamodb.Attribute(name=name, type=dynamodb.AttributeType.STRING)
