"""Methods for the tokens of an answer to a prompt about pictures."""
