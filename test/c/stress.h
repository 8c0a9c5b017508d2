/*
 * stress.h - what the stress programs share: a check that ends the program, and dice.
 *
 * Model: a program that does not hold prints where and what, and exits with 1. Threads: any; each
 * has a state of its own for its dice, never 0.
 */
#ifndef STRESS_H
#define STRESS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail(__FILE__, #condition, __LINE__);                                                  \
    } while (0)

static inline void fail(const char *file, const char *what, int line) {
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    exit(1);
}

static inline uint64_t dice(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

#endif
