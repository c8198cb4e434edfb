"""`make bench-ingress`: what ingress costs beside the same handler written with Powertools and boto3."""
