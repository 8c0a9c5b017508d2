defmodule MABEAM.Application do
  @moduledoc """
  The application: starts `MABEAM.Supervisor`, and nothing beside it.

  Environment of `:mabeam`, all optional:

    * `:max_in_flight` - how many requests and notifications one agent may have waiting, 100
      unless told otherwise
    * `:load_balancer_test_mode` - see `MABEAM.LoadBalancer`

  How many restarts the supervisors bear is Foundation's environment, see
  `Foundation.Application.intensity/0`.
  """
  use Application

  @impl true
  def start(_type, _arguments), do: MABEAM.Supervisor.start_link([])
end
