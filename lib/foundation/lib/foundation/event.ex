defmodule Foundation.Event do
  @moduledoc """
  Something that happened on this node, as `Foundation.Events` keeps it.

    * `:id` - a positive integer, greater than those of all events made before on this node
    * `:type` - what happened, an atom
    * `:data` - any term
    * `:timestamp` - when, in milliseconds of the system's time
    * `:correlation_id` - what the events of one course of things have in common; its own id
      unless told
    * `:parent_id` - the event that led to this one, or `nil`
    * `:source` - the process that made it
  """

  @enforce_keys [:id, :type, :data, :timestamp, :correlation_id, :parent_id, :source]
  defstruct @enforce_keys

  @type id :: pos_integer
  @type t :: %__MODULE__{
          id: id,
          type: atom,
          data: term,
          timestamp: integer,
          correlation_id: term,
          parent_id: id | nil,
          source: pid
        }
end
