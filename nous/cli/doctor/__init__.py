"""``nous doctor``: small checks of the machine, the state directory, what is recorded there, and the configuration."""
