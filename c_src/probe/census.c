#include "census.h"
#include "probe.h"

#include "census.skel.h"

#include <inttypes.h>
#include <math.h>
#include <time.h>

/* Nothing is told by this iterator: it looks for the node. */
static void ignore(void *arg, const void *data) { (void)arg, (void)data; }

int census_load(struct census_probes *probes, const struct target *target,
                const struct options *telling) {
    struct census_bpf *bpf = probes->bpf = census_bpf__open();
    char nothing[64];
    if (bpf == NULL)
        return kernel_refused("open the census's programs", -errno);
    bpf->rodata->target_pid = (unsigned)target->pid;
    bpf->rodata->own_ns = target->own_ns;
    bpf->rodata->telling = telling != NULL;
    if (telling != NULL)
        bpf_map__set_max_entries(bpf->maps.seen, telling->ring_mib << 20);
    int error = census_bpf__load(bpf);
    if (error == 0)
        error = kernel_iterate(bpf->progs.find_node, nothing, sizeof nothing, ignore, NULL);
    return error == 0 ? 0 : kernel_refused("load the census's programs", error);
}

int census_attach(struct census_probes *probes, const struct target *target) {
    int status = kernel_uprobe(probes->bpf->progs.create_returns, target, "erl_create_process",
                               true, false, &probes->births);
    if (status != 0)
        return status;
    return kernel_uprobe(probes->bpf->progs.exits, target, "erts_do_exit_process", false, false,
                         &probes->deaths);
}

void census_detach(struct census_probes *probes) {
    bpf_link__destroy(probes->births);
    bpf_link__destroy(probes->deaths);
    probes->births = probes->deaths = NULL;
}

void census_close(struct census_probes *probes) {
    census_detach(probes);
    census_bpf__destroy(probes->bpf);
}

uint64_t census_dropped(const struct census_probes *probes) {
    return probes->bpf->bss->dropped + kernel_missed(probes->bpf->progs.create_returns) +
           kernel_missed(probes->bpf->progs.exits);
}

/* Rates per second from windows, with the half of their 95 % interval: windows differ as they do.
 */
struct rate {
    uint64_t windows;
    double sum, squares;
};

static void rate_add(struct rate *rate, uint64_t events, double seconds) {
    double value = (double)events / seconds;
    rate->windows++;
    rate->sum += value;
    rate->squares += value * value;
}

static double rate_mean(const struct rate *rate) {
    return rate->windows == 0 ? 0 : rate->sum / (double)rate->windows;
}

/* A negative value: unknown, with fewer than two windows. */
static double rate_error(const struct rate *rate) {
    double n = (double)rate->windows, mean = rate_mean(rate);
    if (rate->windows < 2)
        return -1;
    double variance = (rate->squares - n * mean * mean) / (n - 1);
    return 1.96 * sqrt((variance > 0 ? variance : 0) / n);
}

struct sampling {
    struct census_probes *probes;
    const struct target *target;
    double percent;
    struct rate births, deaths;
    int status;
    bool *stop;
};

static void sleep_ms(double ms) {
    struct timespec time = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(fmod(ms, 1000) * 1e6)};
    nanosleep(&time, NULL);
}

/* One second: `percent` of it watched. What was attached is taken away: it costs by the call. */
static void sample(void *arg) {
    struct sampling *sampling = arg;
    struct census_bpf__bss *counts = sampling->probes->bpf->bss;
    if (target_ended(sampling->target))
        return;
    uint64_t births = counts->births, deaths = counts->deaths;
    sampling->status = census_attach(sampling->probes, sampling->target);
    if (sampling->status == 0) {
        uint64_t from = probe_now_ns();
        counts->counting = true;
        sleep_ms(10 * sampling->percent);
        counts->counting = false;
        double seconds = (double)(probe_now_ns() - from) / 1e9;
        rate_add(&sampling->births, counts->births - births, seconds);
        rate_add(&sampling->deaths, counts->deaths - deaths, seconds);
    }
    census_detach(sampling->probes);
    *sampling->stop = sampling->status != 0;
    sleep_ms(*sampling->stop ? 0 : 1000 - 10 * sampling->percent);
}

static void print_sampled(const struct options *options, const struct window *window,
                          const struct sampling *sampling, uint64_t lost) {
    const struct rate *births = &sampling->births, *deaths = &sampling->deaths;
    window_print(window, options->json);
    printf(options->json ? ",\"sample\":%g,\"windows\":%" PRIu64
                           ",\"births_per_s\":%.3f,\"births_error\":%.3f,"
                           "\"deaths_per_s\":%.3f,\"deaths_error\":%.3f,\"dropped\":%" PRIu64 "}\n"
                         : "sampled %g %% of each of %" PRIu64 " s; +- 95 %% (-1: unknown)\n"
                           "  births/s  %10.1f +- %.1f\n"
                           "  deaths/s  %10.1f +- %.1f\n"
                           "  dropped   %10" PRIu64 "\n",
           options->sample, births->windows, rate_mean(births), rate_error(births),
           rate_mean(deaths), rate_error(deaths), lost);
}

static void print_counts(const struct options *options, const struct window *window,
                         const struct census_bpf__bss *counts, uint64_t lost) {
    int64_t change = (int64_t)(counts->births - counts->deaths);
    double seconds = window_seconds(window);
    window_print(window, options->json);
    printf(options->json ? ",\"births\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"deaths\":%" PRIu64
                           ",\"live_change\":%" PRId64 ",\"dropped\":%" PRIu64
                           ",\"births_per_s\":%.3f,\"deaths_per_s\":%.3f}\n"
                         : "  births       %10" PRIu64 "\n"
                           "  failed       %10" PRIu64 "\n"
                           "  deaths       %10" PRIu64 "\n"
                           "  live_change  %+10" PRId64 "\n"
                           "  dropped      %10" PRIu64 "\n"
                           "  births/s     %12.1f\n"
                           "  deaths/s     %12.1f\n",
           (uint64_t)counts->births, (uint64_t)counts->failed, (uint64_t)counts->deaths, change,
           lost, (double)counts->births / seconds, (double)counts->deaths / seconds);
}

static int count(const struct options *options, const struct target *target,
                 struct census_probes *probes) {
    struct sampling sampling = {.probes = probes, .target = target, .percent = options->sample};
    struct window window = {.target = target, .command = "census", .seconds = options->seconds};
    /* Also before sampling: what cannot be is said at once. */
    int status = census_attach(probes, target);
    if (status != 0)
        return status;
    if (options->sample > 0) {
        census_detach(probes);
        window.each = sample;
        sampling.stop = &window.stop;
        window.arg = &sampling;
    } else {
        probes->bpf->bss->counting = true;
    }
    window_watch(&window);
    probes->bpf->bss->counting = false;
    if (sampling.status != 0 && window.end == WINDOW_STOPPED)
        return sampling.status;
    if (options->sample > 0)
        print_sampled(options, &window, &sampling, census_dropped(probes));
    else
        print_counts(options, &window, probes->bpf->bss, census_dropped(probes));
    return 0;
}

int census_command(const void *given) {
    const struct options *options = given;
    struct target target;
    struct census_probes probes = {0};
    int status = probe_open(options, &target);
    if (status == 0)
        status = census_load(&probes, &target, NULL);
    if (status == 0)
        status = count(options, &target, &probes);
    census_close(&probes);
    target_close(&target);
    return status;
}
