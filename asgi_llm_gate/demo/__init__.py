"""Something to try the gate on with nothing to configure: a handler before an embedded echo model."""
