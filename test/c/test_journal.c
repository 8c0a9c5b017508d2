/* Blocks: what is sealed is read, and nothing else is. */
#include "journal.h"

#include <criterion/criterion.h>
#include <string.h>

static uint64_t memory[4096];

static struct lin_block *seal_texts(size_t at, uint64_t no, const char *text) {
    struct lin_block *block = (void *)((char *)memory + at);
    struct lin_text *first = (void *)(block + 1);
    first->id = 7;
    first->len = (uint32_t)strlen(text);
    first->unused = 0;
    memcpy(first->text, text, first->len);
    lin_block_seal(block, LIN_BLOCK_NAMES, (uint32_t)sizeof *first + first->len, 3, no, 4, 5);
    return block;
}

Test(journal, crc_of_the_standard) {
    cr_assert_eq(lin_crc32c(0, "123456789", 9), 0xe3069283u);
    cr_assert_eq(lin_crc32c(0, "", 0), 0);
    uint32_t part = lin_crc32c(0, "1234", 4);
    cr_assert_eq(lin_crc32c(part, "56789", 5), 0xe3069283u);
    unsigned char zeros[32] = {0};
    cr_assert_eq(lin_crc32c(0, zeros, sizeof zeros), 0x8a9136aau);
}

Test(journal, blocks_follow_each_other) {
    size_t end = lin_block_padded(seal_texts(0, 0, "one")->bytes);
    end += lin_block_padded(seal_texts(end, 1, "another one")->bytes);
    size_t at = 0, skipped = 0;
    const struct lin_block *block = lin_block_next(memory, end, &at, &skipped);
    cr_assert_eq(block->no, 0);
    block = lin_block_next(memory, end, &at, &skipped);
    cr_assert_eq(block->no, 1);
    const struct lin_text *text = lin_text_next(block, NULL);
    cr_assert_eq(text->len, 11);
    cr_assert_arr_eq(text->text, "another one", 11);
    cr_assert_null(lin_text_next(block, text));
    cr_assert_null(lin_block_next(memory, end, &at, &skipped));
    cr_assert_eq(skipped, 0);
}

Test(journal, a_damaged_block_is_skipped_and_counted) {
    size_t first = lin_block_padded(seal_texts(0, 0, "one")->bytes);
    size_t end = first + lin_block_padded(seal_texts(first, 1, "two")->bytes);
    ((char *)memory)[50] ^= 1;
    size_t at = 0, skipped = 0;
    cr_assert_eq(lin_block_next(memory, end, &at, &skipped)->no, 1);
    cr_assert_eq(skipped, first);
    /* Torn: behind it there is nothing. */
    at = first, skipped = 0;
    cr_assert_null(lin_block_next(memory, end - 1, &at, &skipped));
    cr_assert_eq(skipped, end - 1 - first);
}

Test(journal, another_version_is_not_read) {
    struct lin_block *block = seal_texts(0, 0, "one");
    block->version = LIN_JOURNAL_VERSION + 1;
    block->crc = 0;
    block->crc = lin_crc32c(0, block, block->bytes);
    size_t at = 0, skipped = 0;
    cr_assert_null(lin_block_next(memory, lin_block_padded(block->bytes), &at, &skipped));
}

/* A block whose sum holds may still say more than it has. */
Test(journal, payloads_fit_what_they_say) {
    struct lin_block *block = (void *)memory;
    struct lin_block_events *events = (void *)(block + 1);
    struct lin_block_census *census = (void *)(block + 1);
    struct lin_block_run *run = (void *)(block + 1);
    *events = (struct lin_block_events){.count = 2};
    lin_block_seal(block, LIN_BLOCK_EVENTS, sizeof *events + 2 * sizeof(struct lin_event), 0, 0, 0,
                   0);
    cr_assert_not_null(lin_block_payload(block, LIN_BLOCK_EVENTS));
    cr_assert_null(lin_block_payload(block, LIN_BLOCK_END));
    for (uint32_t count = 1; count < 1u << 31; count *= 2)
        if (count != 2) {
            events->count = count;
            cr_assert_null(lin_block_payload(block, LIN_BLOCK_EVENTS));
        }
    *census = (struct lin_block_census){.count = UINT32_MAX, .rings = UINT32_MAX};
    lin_block_seal(block, LIN_BLOCK_CENSUS, sizeof *census, 0, 0, 0, 0);
    cr_assert_null(lin_block_payload(block, LIN_BLOCK_CENSUS));
    memset(run, 'x', sizeof *run);
    lin_block_seal(block, LIN_BLOCK_RUN, sizeof *run, 0, 0, 0, 0);
    cr_assert_null(lin_block_payload(block, LIN_BLOCK_RUN), "its names have no end");
    for (uint32_t bytes = 0; bytes < 16; bytes++) {
        lin_block_seal(block, LIN_BLOCK_EVENTS, bytes, 0, 0, 0, 0);
        cr_assert_null(lin_block_payload(block, LIN_BLOCK_EVENTS));
    }
}

Test(journal, texts_that_lie) {
    struct lin_block *block = seal_texts(0, 0, "one");
    struct lin_text *text = (void *)(block + 1);
    const uint32_t lens[] = {4, 100, 1u << 20, UINT32_MAX - 15, UINT32_MAX};
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        text->len = lens[i];
        cr_assert_null(lin_text_next(block, NULL));
    }
}
