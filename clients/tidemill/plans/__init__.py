"""The logic of every method, written once for both clients; see `tidemill.steps`."""
