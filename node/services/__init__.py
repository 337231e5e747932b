"""What the API surfaces share: who may do what, as commands on documents."""
