defmodule Corpus.Quoted do
  @moduledoc "Quoted code is called where it is expanded; what is unquoted in it, and what a macro itself does, is called here."

  defmacro in_background(fun) do
    quote do
      spawn(unquote(fun))
      Task.start(unquote(fun))
      apply(Kernel, :spawn, [unquote(fun)])
      Enum.map([unquote(fun)], &Task.async/1)
    end
  end

  defmacro short(fun), do: quote(do: spawn(unquote(fun)))

  defmacro when_compiled(fun) do
    Task.start(fn -> fun end) #=> unlinked Task.start/1

    quote do
      unquote(inspect(spawn(fn -> fun end))) #=> unlinked Kernel.spawn/1
      [unquote_splicing([inspect(Task.async(fn -> fun end))])] #=> tethered Task.async/1
      Kernel.unquote(elem({:spawn, spawn(fn -> fun end)}, 0))(fn -> :ok end) #=> unlinked Kernel.spawn/1
    end
  end

  defmacro bound(fun) do
    quote bind_quoted: [fun: fun, made: inspect(spawn(fn -> 1 end))] do #=> unlinked Kernel.spawn/1
      spawn(fun)
      def unquote(made)(), do: unquote(spawn(fun))
    end
  end

  defmacro twice(fun) do
    quote do
      quote do
        unquote(spawn(unquote(fun)))
      end
    end
  end

  defmacro kept do
    quote unquote: false do
      unquote(spawn(fun))
    end
  end

  defmacro __using__(_options) do
    quote location: :keep do
      use GenServer
      def start(argument), do: GenServer.start(__MODULE__, argument)
      def start_supervised_by_nobody(fun), do: Task.start_link(fun)
    end
  end

  def after_all(fun), do: spawn(fun) #=> unlinked Kernel.spawn/1
end
