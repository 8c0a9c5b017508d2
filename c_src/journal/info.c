#include "tool.h"

#include <inttypes.h>

static const char *fate_text(const struct lin_run *run) {
    switch (fate_of(run)) {
    case RUNNING:
        return "running";
    case DIED:
        return "died";
    default:
        return run->end == LIN_END_DETACHED ? "detached" : "closed";
    }
}

/* What lies in its rings, not in its segments. */
static uint64_t left_of(const struct lin_run *run, uint64_t *missing) {
    struct lin_left left;
    uint64_t events = 0;
    if (lin_left_read(run, &left) != 0)
        return 0;
    for (uint32_t n = 0; n < left.rings->count; n++)
        for (uint64_t at = left.from[n]; at < left.to[n]; at++) {
            const struct lin_event *event = lin_left_at(&left, n, at);
            if (event != NULL && event->kind == LIN_EV_GAP)
                *missing += event->a;
            else if (event != NULL)
                events++;
        }
    *missing += left.untold + (fate_of(run) == RUNNING ? 0 : left.between);
    lin_left_free(&left);
    return events;
}

static void print_json(const struct lin_run *run, uint64_t left, uint64_t missing) {
    char from[TEXT], to[TEXT];
    printf("{\"run\":\"%016" PRIx64 "\",\"node\":", run->id);
    json_text(run->head.node);
    printf(",\"fate\":\"%s\",\"os_pid\":%u,\"release\":%u,\"from\":\"%s\",\"to\":\"%s\"",
           fate_text(run), run->head.os_pid, run->head.release,
           wall_text(from, run->head.opened_wall_ns), wall_text(to, run->to_wall_ns));
    printf(",\"segments\":%u,\"first_segment\":%u,\"blocks\":%" PRIu64 ",\"bytes\":%" PRIu64,
           run->segments, run->first_segment, run->blocks, run->bytes);
    printf(",\"events\":%" PRIu64 ",\"in_rings\":%" PRIu64 ",\"gaps\":%" PRIu64, run->events, left,
           missing);
    printf(",\"missing_blocks\":%" PRIu64 ",\"damaged_bytes\":%zu}\n", run->missing_blocks,
           run->damaged_bytes);
}

static void print_plain(const struct lin_run *run, uint64_t left, uint64_t missing) {
    char node[TEXT], from[TEXT], to[TEXT], span[TEXT];
    uint64_t lasted =
        run->to_wall_ns > run->head.opened_wall_ns ? run->to_wall_ns - run->head.opened_wall_ns : 0;
    printf("run %016" PRIx64 "  %s  %s, OS process %u, OTP %u\n", run->id, fate_text(run),
           node_text(node, run), run->head.os_pid, run->head.release);
    printf("  from %s to %s (%s)\n", wall_text(from, run->head.opened_wall_ns),
           wall_text(to, run->to_wall_ns), span_text(span, lasted));
    printf("  segments %u to %u, %" PRIu64 " blocks, %.1f MiB\n", run->first_segment,
           run->last_segment, run->blocks, (double)run->bytes / 1048576);
    printf("  %" PRIu64 " events, and %" PRIu64 " in rings; %" PRIu64 " missing in gaps\n",
           run->events, left, missing);
    if (run->missing_blocks != 0 || run->damaged_bytes != 0)
        printf("  %" PRIu64 " blocks are missing, %zu bytes are damaged\n", run->missing_blocks,
               run->damaged_bytes);
    if (run->head.rings_in_file == 0)
        printf("  its rings were in memory only: the last events did not outlive it\n");
}

int info_command(const void *given) {
    const struct options *options = given;
    struct loaded loaded;
    int status = load_runs(options, &loaded);
    for (size_t i = 0; i < loaded.run_count && status == 0; i++) {
        const struct lin_run *run = &loaded.runs[i];
        uint64_t missing = run->missing, left = left_of(run, &missing);
        if (options->run != NULL && run != loaded.run)
            continue;
        if (options->json)
            print_json(run, left, missing);
        else
            print_plain(run, left, missing);
    }
    loaded_close(&loaded);
    return status;
}
