/*
 * Any bytes as a journal: a segment, and what a killed node left in its rings. Built without the
 * check of a block's sum (journal.c), or nothing would come past it.
 *
 * Input: 2 bytes: how long the segment is; the segment; then bytes over a region of rings, headers
 * first, whose rest is empty.
 */
#include "replay.h"

#include <stdlib.h>
#include <string.h>

#define RINGS 2u

static void *rings_of(const struct lin_run *run, const uint8_t *data, size_t bytes, size_t *room) {
    *room = lin_rings_bytes(RINGS, LIN_RING_MIN_CAPACITY);
    struct lin_rings *rings = calloc(1, *room);
    if (rings == NULL)
        return NULL;
    lin_rings_init(rings, RINGS, LIN_RING_MIN_CAPACITY);
    rings->run = run->id;
    rings->os_pid = run->head.os_pid;
    rings->os_start = run->head.os_start;
    /* The ring headers, then their first events. */
    for (uint32_t n = 0; n < RINGS; n++) {
        size_t some = bytes < 512 ? bytes : 512;
        memcpy(lin_ring_at(rings, n), data, some);
        data += some;
        bytes -= some;
    }
    return rings;
}

static void use(const struct lin_replay *replay, const struct lin_replayed *out) {
    uint32_t len;
    uint64_t sum = 0;
    for (size_t i = 0; i < out->live_count; i++) {
        const struct lin_entry *entry = &out->live[i].entry;
        sum += lin_replay_find(replay, entry->guardian) != NULL;
        sum += lin_replay_function(replay, entry->initial_call) != NULL;
        sum += lin_replay_site(replay, entry->site) != NULL;
        const char *text = lin_replay_text(replay, LIN_BLOCK_NAMES, out->live[i].name, &len);
        sum += text == NULL ? 0 : strlen(text) <= len;
    }
    if (sum == UINT64_MAX)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (bytes < 2)
        return 0;
    size_t segment = (size_t)data[0] | (size_t)data[1] << 8;
    data += 2;
    bytes -= 2;
    if (segment > bytes)
        segment = bytes;
    uint64_t *aligned = malloc(segment + 8);
    struct lin_run *run = malloc(sizeof *run);
    struct lin_left *left = malloc(sizeof *left);
    struct lin_replay *replay = lin_replay_create(UINT64_MAX);
    if (aligned == NULL || run == NULL || left == NULL || replay == NULL)
        abort();
    memcpy(aligned, data, segment);
    uint64_t id =
        segment >= sizeof(struct lin_block) ? ((struct lin_block *)(void *)aligned)->run : 0;
    lin_run_init(run, id);
    lin_run_segment(run, 0, aligned, segment, lin_replay_block, replay);
    size_t room;
    void *rings = rings_of(run, data + segment, bytes - segment, &room);
    if (rings != NULL && lin_left_init(run, rings, room, left) == 0)
        lin_replay_left(replay, left);
    const struct lin_replayed *out;
    if (lin_replay_finish(replay, &run->head, &out) == 0)
        use(replay, out);
    lin_replay_destroy(replay);
    free(rings);
    free(left);
    free(run);
    free(aligned);
    return 0;
}
