"""What runs the bridge somewhere, and what is made from it: the chart's page and the plain manifests."""
