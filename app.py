"""The CDK app: one stack of one stage. `cdk synth --context stage=prod`; the stage is `dev` unless said otherwise."""

from __future__ import annotations

from aws_cdk import App, Validations
from cdk_nag import AwsSolutionsChecks, ServerlessChecks

from infra.bundle import Bundler
from infra.config import STAGES
from infra.stack import HoldfastStack

app = App()
config = STAGES[app.node.try_get_context("stage") or "dev"]
HoldfastStack(app, config=config, code_for=Bundler(config.platform).code_for)
Validations.of(app).add_plugins(AwsSolutionsChecks(app), ServerlessChecks(app))
app.synth()
