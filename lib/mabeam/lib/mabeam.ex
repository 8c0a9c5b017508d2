defmodule MABEAM do
  @moduledoc """
  Agents on the BEAM, on `Foundation`.

  | module | what it does |
  | --- | --- |
  | `MABEAM.Agent` | agents: register, start, stop, find |
  | `MABEAM.Comms` | requests, notifications and events between them |
  | `MABEAM.Coordination` | lets several agents agree, by protocols |
  | `MABEAM.LoadBalancer` | chooses an agent for a task |
  | `MABEAM.Core` | variables of the system, its status and its health |

  What was audited and replaced lies in `MABEAM.Legacy`, see `Foundation.Supervision`.
  """
end
