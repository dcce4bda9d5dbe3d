"""Recording rules, alerts and the Grafana dashboard, generated from Python; the YAML and JSON beside are committed."""
