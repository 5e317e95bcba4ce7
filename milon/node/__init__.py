"""The composition root: config, keys, inbox, runner, wiring."""
