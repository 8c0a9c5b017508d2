[
  inputs: [
    "{mix,.formatter}.exs",
    "lib/lineage/elixir/**/*.ex",
    "test/exunit/**/*.{ex,exs}"
  ]
]
