"""Attribution on the input."""
