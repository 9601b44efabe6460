"""What to do when the caller leaves: who bills what, the operator's rules, the decision. Pure."""
