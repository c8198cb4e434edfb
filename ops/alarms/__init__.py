"""CloudWatch's way of judging alarms, computed here: for the local stage, and for replaying what was recorded."""
