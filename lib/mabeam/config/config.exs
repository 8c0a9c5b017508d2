import Config

# The tests kill services faster than any node loses them.
if config_env() == :test, do: config(:foundation, max_restarts: 1_000)
