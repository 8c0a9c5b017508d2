defmodule Lineage do
  @moduledoc """
  Tells which live processes of this node nobody would stop.

  Lineage hooks every process creation and exit of the running node, and answers three questions
  about each live process: *who stops it, who restarts it, who notices that it died*. A process that
  no path of links joins to a supervision tree is an **orphan**.

      iex> {:ok, _info} = Lineage.attach()
      iex> {:ok, pid} = Task.start(fn -> Process.sleep(:infinity) end)
      iex> Lineage.print(Lineage.orphans())
      iex> Lineage.print(Lineage.why(pid))
      iex> Lineage.detach()

  Queries return data; `print/1` shows it to people. Every function here is the function of the same
  name in the Erlang module `:lineage`, with options as keywords instead of a map, and rows as structs
  that iex shows in a line each: `Lineage.Orphan` and `Lineage.Why`; `Lineage.Overhead` it shows as a table.

  A query without a session raises an `ErlangError` that says to call `attach/1` first.
  """

  @typedoc "Names a kind of process: by what it runs first, or by its registered name."
  @type match :: {module, atom, arity | :_} | atom

  @typedoc "A process, as `why/1` takes it: a pid, a registered name, or a string like `\"0.123.0\"`."
  @type name :: pid | atom | String.t()

  @typedoc "Why an orphan is one; the words are explained at `orphans/1`."
  @type kind :: :foreign | :escaped | :abandoned | :detached

  @type attach_option ::
          {:exits, :suspects | :all}
          | {:monitors, :exact | :off}
          | {:sites, :off | :closure | :exact}
          | {:wrappers, [module | {module, atom}]}
          | {:overhead, :off | :duty | {:duty, number} | :continuous}
          | {:target_ms, number}
          | {:critical, [mfa]}
          | {:max_bytes, pos_integer}
          | {:for, pos_integer}
          | {:max_spawn_rate, pos_integer}
          | {:progress, (non_neg_integer, non_neg_integer -> term)}
          | {:runtime, [match]}
          | {:hosts, [match]}
          | {:services, [match]}
          | {:supervisors, [match]}

  @type orphans_option ::
          {:kind, kind | [kind]}
          | {:app, atom}
          | {:min_age_ms, non_neg_integer}
          | {:ignore, [match | String.t()]}
          | {:max, pos_integer}

  @doc """
  Attaches Lineage to this node: from now on every birth and death is counted, and every process that
  is already there is known.

  Starts the `:lineage` application if need be. The session outlives the caller; it ends with
  `detach/0`, with its fuse, or with the application.

  ## Options

    * `:exits` - `:suspects` (default) stops watching a process at its first link, so that processes of
      a supervision tree cost nothing from then on. `:all` watches each process until it dies, for the
      time and reason of every exit; it slows message passing by 12 to 40 %.
    * `:monitors` - `:exact` also traces the calls that set monitors, so that an abnormal exit is known
      to be noticed or not. `:off` (default) leaves that `:unknown`.
    * `:sites` - where processes are spawned, see `sites/0`. `:closure` (default): a spawned function tells
      which one it is. `:exact` also traces the calls that spawn, for the line of each, which costs about a
      microsecond a spawn. `:off`: only what a process runs is known.
    * `:wrappers` - modules, and `{module, function}`, that spawn for their caller, as `Task` does: the site
      is the line that calls them.
    * `:overhead` - whether it is measured what supervision costs, see `overhead/0`. `:off` (default).
      `{:duty, percent}`: at random moments, in so much of the time (above 0 and at most 50); `:duty` is 2.
      `:continuous`: all the time, which makes a start some 14 to 73 % slower.
    * `:target_ms` - what overhead is judged by; starts that take longer are looked into (5).
    * `:critical` - at most 16 functions, `{module, function, arity}`, that return (no loop of a server), whose
      calls are measured too, with the share of them that starts take.
    * `:max_bytes` - memory that the census may take, in bytes (256 MiB). Births beyond it are counted
      as `lost`, not recorded.
    * `:for` - detaches by itself after so many milliseconds.
    * `:max_spawn_rate` - detaches by itself when more processes than this are born within one second.
    * `:progress` - a function that is told, while attach reads the processes that are there, how many
      are done and how many there are in all.
    * `:runtime`, `:hosts`, `:services`, `:supervisors` - lists of `{module, function, arity}` or
      registered names that extend the built-in lists: processes that have no supervisor by design,
      processes that stand for their user, processes whose links tether nobody, and processes that
      supervise others.

  ## Returns

    * `{:ok, info}` - a map with what was found at attach.
    * `{:error, {tag, sentence}}` - the sentence says what to do next. Only one session can be attached
      to a node at a time.

  ## Examples

      iex> {:ok, info} = Lineage.attach()

      # On a production node: ten minutes at most, less if it spawns more than 50,000 a second.
      iex> {:ok, info} = Lineage.attach(for: 600_000, max_spawn_rate: 50_000)

      # MyApp.Pool links to every worker it lends out; those links are no supervision.
      iex> {:ok, info} = Lineage.attach(services: [MyApp.Pool])

      # What supervision costs, and how much of a request is spent in starts.
      iex> {:ok, info} = Lineage.attach(overhead: :duty, critical: [{MyApp.Orders, :place, 2}])

  """
  @spec attach([attach_option]) :: {:ok, map} | {:error, {atom, String.t()}}
  def attach(options \\ []), do: :lineage.attach(Map.new(options))

  @doc """
  Ends the session and frees everything it held. Also `:ok` when none is attached.

  ## Examples

      iex> Lineage.detach()
      :ok

  """
  @spec detach() :: :ok
  defdelegate detach(), to: :lineage

  @doc """
  Gives up the trace flags for as long as `fun` runs, so that another tracer can work; returns what
  `fun` returns.

  Before OTP 27 a node has one tracer for all tools, and `:dbg` or `:recon_trace` may find it taken.
  What is born meanwhile is found again afterwards; the time is added to `blind_ms` of `summary/0`.

  ## Examples

      iex> Lineage.yield(fn -> MyTracing.run(5_000) end)

  """
  @spec yield(function) :: term
  defdelegate yield(fun), to: :lineage

  @doc """
  Counts, from the census alone: no process is asked anything, so it is cheap on a large node.

  Returns a map. `:live`, `:births`, `:deaths` (`:seen` by their exit and `:swept` by liveness),
  `:orphans` (an upper bound) and `:orphans_checked` (how many the last `orphans/1` confirmed),
  `:silent_failures` (abnormal exits that nobody noticed), `:unheard_unknown` (those that perhaps
  nobody did), `:lost`, `:blind_ms`, `:since`, `:exits`, `:bytes` and `:peak_bytes`.

  ## Examples

      iex> Lineage.summary().orphans

  """
  @spec summary() :: map
  defdelegate summary(), to: :lineage

  @doc """
  The live pids that the census knows.

  ## Examples

      iex> self() in Lineage.pids()
      true

  """
  @spec pids() :: [pid]
  defdelegate pids(), to: :lineage

  @doc """
  The orphans: live processes that no path of links joins to a supervision tree or a host.

  Each is a `Lineage.Orphan`, and was checked against the live process. The kinds, the first that fits:

    * `:foreign` - spawned from another node
    * `:escaped` - was supervised or tethered, then unlinked; or a supervisor lists it without a link
    * `:abandoned` - its parent is dead
    * `:detached` - its parent lives

  ## Options

    * `:kind` - only this kind, or only those in this list
    * `:app` - only processes of this application
    * `:min_age_ms` - only those that have lived this long, in milliseconds
    * `:ignore` - leaves out those with one of these initial calls `{module, function, arity}` (also of
      their spawner; the arity may be `:_`), registered names or labels, and what hangs below them
    * `:max` - how many candidates are checked at most (10,000)

  ## Examples

      iex> Lineage.print(Lineage.orphans(min_age_ms: 60_000))
      iex> Lineage.orphans(kind: :escaped, ignore: [{Task.Supervised, :noreply, :_}])

  `orphans(:os)` are OS processes that a port has started and whose port is gone, as maps with `:os_pid`, `:program`,
  `:age_ms`, `:adopted`, `:owner`, `:owner_alive`, `:initial_call` and `:site`. They are seen while
  `priv/lineage-probe ospids -p PID --feed` runs, as root.
  """
  @spec orphans([orphans_option]) :: [Lineage.Orphan.t()]
  @spec orphans(:os) :: [map]
  def orphans(options \\ [])
  def orphans(:os), do: :lineage.orphans(:os)

  def orphans(options) do
    for orphan <- :lineage.orphans(Map.new(options)), do: struct(Lineage.Orphan, orphan)
  end

  @doc """
  The last dead processes that had no link, newest first: at most `count` of them, and at most 1,000.

  Even a process that lived for microseconds is named here.

  ## Examples

      iex> spawn(fn -> exit(:boom) end)
      iex> Lineage.print(Lineage.recent(10))

  """
  @spec recent(pos_integer) :: [map]
  defdelegate recent(count), to: :lineage

  @doc """
  The places in code where processes were spawned since attach: those with the most orphans first, then the
  most live, then the most births.

  Each has `:site`, `:births`, `:live`, `:orphans` (an upper bound) and `:unheard` (abnormal exits that nobody
  is known to have heard of). A site is a map; its `:kind` says how sure it is:

    * `:call` - `:file` and `:line` of the call that spawns
    * `:closure` - where the function was made, which was spawned elsewhere
    * `:via` - the line of a caller, which may be the site itself, or, where `:tail` is true, is none: the call
      that spawns was a tail call; `:candidate` is the only one it can have been, where there is but one
    * `:start` - what the process runs, and what the one runs that spawned it

  ## Examples

      iex> Lineage.print(Lineage.sites())

  """
  @spec sites() :: [map]
  defdelegate sites(), to: :lineage

  @doc """
  The static findings in sources and beams below these paths, against the sites of this session: `:seen` live,
  `:never` seen, and `:unfound`, live without a finding: each a gap to look at. See `mix lineage.audit`.

  ## Examples

      iex> Lineage.print(Lineage.reconcile(["lib"]))

  """
  @spec reconcile([Path.t()]) :: map
  defdelegate reconcile(paths), to: :lineage

  @doc """
  Runs `fun` in a scope of its own, and returns its result and what outlived it.

  The second is a map: `:leaks`, processes that `fun` spawned, however deep, and that live half a second after it, each
  with `:kind`, `:site` and `:direct` (no other leak started it); `:silent`, failures that nobody heard of, which are known
  with `monitors: :exact`; `:notes`, what could not be known. Any session will do; `sites: :exact` knows more lines.

  ## Examples

      iex> {result, left} = Lineage.scope("the nightly import", fn -> MyApp.Importer.run() end)
      iex> for leak <- left.leaks, do: {leak.pid, leak.kind}

  """
  @spec scope(term, (() -> result)) :: {result, map} when result: term
  defdelegate scope(name, fun), to: :lineage

  @doc """
  The leaks of this node, in a map: `:orphans` that linger, sites and supervisors whose population only is
  `:growing`, `:scopes` that ended with survivors, and `:sampling`, what the second stands on.

  Each that grows has `:first` and `:last` of its `:values`, the `:slope` (processes a minute), `:windows` and
  `:window_ms`, `:live`, `:births` and `:confidence`. A leak of one a minute is known within ten minutes where
  nothing else ends there, and later below churn; the Erlang module `:lineage_growth` documents the method.

  ## Options

    * `:min_age_ms` - how long an orphan has lived to be listed, in milliseconds (60,000)
    * `:ignore` - leaves out those with one of these initial calls, registered names or labels

  ## Examples

      iex> Lineage.print(Lineage.leaks())
      iex> Lineage.leaks(min_age_ms: 0).orphans

  """
  @spec leaks([{:min_age_ms, non_neg_integer} | {:ignore, [match | String.t()]}]) :: map
  def leaks(options \\ []) do
    leaks = :lineage.leaks(Map.new(options))
    %{leaks | orphans: Enum.map(leaks.orphans, &struct(Lineage.Orphan, &1))}
  end

  @doc """
  Tells leaks as they appear, each once: prints them, or sends `{:lineage, :leak, map}`. Where `:telemetry` is there,
  the event `[:lineage, :leak]` is executed too, with `:count` among its measurements and the map as metadata.

  It ends with `unwatch/1`, with the session, and when its receiver dies. `:leak` in the map says what it is: `:site`,
  `:supervisor`, `:orphan`, `:scope`, or `:held_back`.

  ## Options

  Those of `leaks/1`, and

    * `:to` - the process that gets the messages; without it they are printed
    * `:max_per_minute` - of more in a minute only the number is told (10)

  ## Examples

      iex> {:ok, watch} = Lineage.watch(to: self())
      iex> Lineage.unwatch(watch)

  """
  @spec watch([{atom, term}]) :: {:ok, pid}
  def watch(options \\ []), do: :lineage.watch(Map.new(options))

  @doc """
  Ends what `watch/1` returned. Also `:ok` when it has ended.

  ## Examples

      iex> Lineage.unwatch(watch)
      :ok

  """
  @spec unwatch(pid) :: :ok
  defdelegate unwatch(watch), to: :lineage

  @doc """
  What supervision costs on this node: the latency of starts, restarts and stops of supervised children, where it
  goes, and whether it is below `:target_ms`. iex shows the table with a bar for each percentile.

  Needs a session with `overhead`; restarts and stops need `exits: :all` beside it. Returns a `Lineage.Overhead`,
  whose rows have, for each part of a start, `:count`, `:mean_us` and the percentiles `:p50`, `:p99` and `:p999` with
  their 95 % intervals, and a `:verdict` for each: `:pass`, `:fail`, or `{:more, n}`, about so many more starts are
  needed to tell. The Erlang module `:lineage_overhead` documents the method.

  ## Examples

      iex> {:ok, _info} = Lineage.attach(overhead: :duty)
      iex> Lineage.overhead()
      iex> hd(Lineage.overhead().starts).verdict.p99

  """
  @spec overhead() :: Lineage.Overhead.t()
  def overhead, do: struct(Lineage.Overhead, :lineage.overhead())

  @doc """
  All about one process: who spawned it, its ancestors up to the root, and who stops it, restarts it
  and notices its death, each with the link or the child spec that the answer stands on.

  Takes a pid, a registered name, or a string such as `"0.123.0"` or `"#PID<0.123.0>"`.

  ## Examples

      iex> Lineage.print(Lineage.why(MyApp.Cache))
      iex> Lineage.print(Lineage.why("0.123.0"))

  """
  @spec why(name) :: Lineage.Why.t() | {:error, {atom, String.t()}}
  def why(name) do
    with %{} = why <- :lineage.why(name), do: struct(Lineage.Why, why)
  end

  @doc """
  The forest of this node as data: applications, their supervisors, what hangs below them, and the
  orphans apart.

  ## Examples

      iex> Lineage.print(Lineage.tree())

  """
  @spec tree() :: map
  defdelegate tree(), to: :lineage

  @doc """
  The same with options, or only what hangs below one application or process.

  ## Options

    * `:depth` - how many levels are shown (12)
    * `:width` - how many siblings with the same initial call are shown before the rest is counted (5)
    * `:max` - how many processes are shown at most (2,000)

  ## Examples

      iex> Lineage.print(Lineage.tree(:my_app))
      iex> Lineage.print(Lineage.tree(MyApp.Supervisor))
      iex> Lineage.print(Lineage.tree(depth: 3))

  """
  @spec tree(name | [{atom, term}]) :: map | {:error, {atom, String.t()}}
  def tree([{_key, _value} | _] = options), do: :lineage.tree(Map.new(options))
  def tree(root), do: :lineage.tree(root)

  @doc """
  What is new since `earlier`: an earlier `summary/0`, or the path of a snapshot by `save/1`.

  ## Examples

      iex> before = Lineage.summary()
      iex> MyApp.do_something()
      iex> Lineage.print(Lineage.diff(before))

  """
  @spec diff(map | Path.t()) :: map | {:error, {atom, String.t()}}
  defdelegate diff(earlier), to: :lineage

  @doc """
  What happens to processes, as it happens: an `Enumerable` of maps, each with its `:kind`: `:birth`, `:link`, `:unlink`,
  `:exit`, `:swept`, `:name`, `:flags`, `:guardian`, or `:gap` where events are missing (`:missing` says how many).

  The process that runs the stream subscribes when it begins, and it ends with the session, or when no more is asked
  for. A batch is sent for each that was taken: a slow consumer has a gap, and nobody's mailbox is flooded.

  Options: `:kinds`, `:sites`, `:scopes`, `:application` or `:applications` filter in the thread where it happens; `:credit`,
  `:batch` and `:buffer` are those of `:lineage.subscribe/1`, which explains them all.

  ## Examples

      iex> Lineage.stream(kinds: [:exit]) |> Stream.filter(&(&1.kind == :exit and &1.abnormal)) |> Enum.take(3)

  """
  @spec stream([{atom, term}]) :: Enumerable.t()
  def stream(options \\ []) do
    Stream.resource(
      fn -> :lineage_stream.open(Map.new(options)) end,
      fn subscription ->
        case :lineage_stream.next(subscription, :infinity) do
          {:ok, events} -> {Enum.map(events, &known/1), subscription}
          :closed -> {:halt, subscription}
        end
      end,
      &:lineage.unsubscribe/1
    )
  end

  defp known(event),
    do: Map.new(event, fn {key, value} -> {key, if(value != :undefined, do: value)} end)

  @doc """
  Writes a snapshot of the census to `path`, as JSON.

  ## Examples

      iex> Lineage.save("/tmp/before.json")
      :ok

  """
  @spec save(Path.t()) :: :ok | {:error, {atom, String.t()}}
  defdelegate save(path), to: :lineage

  @doc """
  Prints what any of the queries returned: tables and trees that fit the terminal, in colour when there
  is one, and plain text when there is none.

  ## Examples

      iex> Lineage.print(Lineage.orphans())
      iex> Lineage.print(Lineage.why(self()))

  """
  @spec print(term) :: :ok
  def print(report), do: :lineage.print(plain(report))

  # The maps that Erlang returned.
  defp plain([%Lineage.Orphan{} | _] = orphans), do: Enum.map(orphans, &plain/1)
  defp plain(%Lineage.Orphan{} = orphan), do: Map.from_struct(orphan)
  defp plain(%Lineage.Why{kind: nil} = why), do: why |> Map.from_struct() |> Map.delete(:kind)
  defp plain(%Lineage.Why{} = why), do: Map.from_struct(why)
  defp plain(%Lineage.Overhead{} = overhead), do: Map.from_struct(overhead)
  defp plain(%{growing: _, orphans: orphans} = leaks), do: %{leaks | orphans: plain(orphans)}
  defp plain(report), do: report
end
