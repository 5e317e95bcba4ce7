"""What users import: jobs, data preparation, the node's HTTP client."""
