#include "journal.h"

#include <pthread.h>
#include <string.h>

/* Eight tables: eight bytes at a time, some 1 GB/s. */
static uint32_t table[8][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void fill_table(void) {
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t crc = n;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
        table[0][n] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (uint32_t n = 0; n < 256; n++)
            table[k][n] = table[k - 1][n] >> 8 ^ table[0][table[k - 1][n] & 0xff];
}

static uint32_t crc_of_word(uint64_t word) {
    uint32_t crc = 0;
    for (int k = 0; k < 8; k++)
        crc ^= table[7 - k][word >> 8 * k & 0xff];
    return crc;
}

uint32_t lin_crc32c(uint32_t crc, const void *data, size_t bytes) {
    const unsigned char *at = data;
    pthread_once(&table_once, fill_table);
    crc = ~crc;
    for (; bytes >= 8; bytes -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        crc = crc_of_word(word ^ crc);
    }
    for (; bytes > 0; bytes--, at++)
        crc = crc >> 8 ^ table[0][(crc ^ *at) & 0xff];
    return ~crc;
}

static uint32_t crc_of(const struct lin_block *block) {
    struct lin_block head = *block;
    head.crc = 0;
    uint32_t crc = lin_crc32c(0, &head, sizeof head);
    return lin_crc32c(crc, block + 1, block->bytes - sizeof *block);
}

void lin_block_seal(struct lin_block *block, enum lin_block_type type, uint32_t payload,
                    uint64_t run, uint64_t no, uint64_t ticks, uint64_t wall_ns) {
    uint32_t bytes = (uint32_t)sizeof *block + payload;
    *block = (struct lin_block){.magic = LIN_BLOCK_MAGIC,
                                .version = LIN_JOURNAL_VERSION,
                                .type = (uint16_t)type,
                                .bytes = bytes,
                                .run = run,
                                .no = no,
                                .ticks = ticks,
                                .wall_ns = wall_ns};
    memset((char *)block + bytes, 0, lin_block_padded(bytes) - bytes);
    block->crc = crc_of(block);
}

/* A fuzzer would not come past a sum. */
static bool sum_holds(const struct lin_block *block) {
#if defined(FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION)
    (void)crc_of(block);
    return true;
#else
    return crc_of(block) == block->crc;
#endif
}

static bool is_good(const struct lin_block *block, size_t left) {
    return left >= sizeof *block && block->magic == LIN_BLOCK_MAGIC &&
           block->version == LIN_JOURNAL_VERSION && block->bytes >= sizeof *block &&
           block->bytes <= LIN_BLOCK_MAX && lin_block_padded(block->bytes) <= left &&
           sum_holds(block);
}

const struct lin_block *lin_block_next(const void *data, size_t bytes, size_t *at,
                                       size_t *skipped) {
    for (; *at < bytes; *at += 8) {
        const struct lin_block *block = (const void *)((const char *)data + *at);
        if (is_good(block, bytes - *at)) {
            *at += lin_block_padded(block->bytes);
            return block;
        }
        *skipped += bytes - *at < 8 ? bytes - *at : 8;
    }
    return NULL;
}

/* How many bytes a payload that says how many things it holds must have; SIZE_MAX: not known. */
static size_t wanted(const struct lin_block *block, size_t have) {
    const void *payload = block + 1;
    const struct lin_block_events *events = payload;
    const struct lin_block_census *census = payload;
    const struct lin_block_end *end = payload;
    switch (block->type) {
    case LIN_BLOCK_RUN:
        return sizeof(struct lin_block_run);
    case LIN_BLOCK_EVENTS:
        return have < sizeof *events
                   ? SIZE_MAX
                   : sizeof *events + (size_t)events->count * sizeof events->event[0];
    case LIN_BLOCK_CENSUS:
        return have < sizeof *census ? SIZE_MAX
                                     : sizeof *census + (size_t)census->rings * sizeof(uint64_t) +
                                           (size_t)census->count * sizeof(struct lin_block_entry);
    case LIN_BLOCK_END:
        return have < sizeof *end ? SIZE_MAX : sizeof *end + (size_t)end->rings * sizeof(uint64_t);
    case LIN_BLOCK_FUNCTIONS:
        return have - have % sizeof(struct lin_block_function);
    case LIN_BLOCK_SITES:
        return have - have % sizeof(struct lin_block_site);
    case LIN_BLOCK_NAMES:
    case LIN_BLOCK_FILES:
    case LIN_BLOCK_PLACES:
    case LIN_BLOCK_SCOPES:
    case LIN_BLOCK_NODES:
        return have;
    default:
        return SIZE_MAX;
    }
}

/* Names are C strings in a fixed room. */
static bool is_ended(const char *text, size_t room) { return memchr(text, 0, room) != NULL; }

const void *lin_block_payload(const struct lin_block *block, enum lin_block_type type) {
    size_t have = block->bytes - sizeof *block;
    if (block->type != type || wanted(block, have) != have)
        return NULL;
    const struct lin_block_run *run = (const void *)(block + 1);
    if (type == LIN_BLOCK_RUN && (!is_ended(run->rings_path, sizeof run->rings_path) ||
                                  !is_ended(run->node, sizeof run->node)))
        return NULL;
    return block + 1;
}

const struct lin_text *lin_text_next(const struct lin_block *block, const struct lin_text *text) {
    const char *from = (const char *)(block + 1), *end = (const char *)block + block->bytes;
    if (text != NULL)
        from = (const char *)text + lin_block_padded((uint32_t)sizeof *text + text->len);
    if (from >= end || (size_t)(end - from) < sizeof *text)
        return NULL;
    text = (const void *)from;
    return text->len > LIN_BLOCK_MAX || (size_t)(end - from) - sizeof *text < text->len ? NULL
                                                                                        : text;
}
