defmodule UserLeaks.Template do
  @moduledoc "A case template whose setups leave something behind, when a test says so."
  use ExUnit.CaseTemplate

  setup context do
    if context[:template] do
      # In a tail position nobody would know the line.
      # leak(template)
      pid = spawn(UserLeaks.Server, :idle, [])
      [pid: pid]
    else
      :ok
    end
  end
end
