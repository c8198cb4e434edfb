"""The CDK app: a stack per stage, `cdk synth --context stage=staging,prod`. The stage is `dev` unless it is said."""

from __future__ import annotations

from aws_cdk import App, Validations
from cdk_nag import AwsSolutionsChecks, ServerlessChecks

from infra.bundle import Bundler
from infra.config import STAGES
from infra.stack import HoldfastStack

app = App()
for stage in (app.node.try_get_context("stage") or "dev").split(","):
    config = STAGES[stage]
    HoldfastStack(app, config=config, code_for=Bundler(config.platform).code_for)
Validations.of(app).add_plugins(AwsSolutionsChecks(app), ServerlessChecks(app))
app.synth()
