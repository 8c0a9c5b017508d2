#include "fake_host.h"

#include <criterion/criterion.h>
#include <errno.h>

/* The table of M:F/A. Atoms are numbers here: the core never looks into them. */

static struct lin_mfas *mfas;

static void setup(void) {
    lin_gate_init(&fake_host);
    mfas = lin_mfas_create();
}

static void teardown(void) {
    lin_mfas_destroy(mfas);
    cr_assert_eq(fake_bytes, 0);
}

TestSuite(mfa, .init = setup, .fini = teardown);

Test(mfa, same_call_same_id) {
    uint32_t id = lin_mfa_intern(mfas, 11, 12, 1);
    cr_assert_neq(id, 0);
    cr_assert_eq(lin_mfa_intern(mfas, 11, 12, 1), id);
    cr_assert_neq(lin_mfa_intern(mfas, 11, 12, 2), id);
    cr_assert_neq(lin_mfa_intern(mfas, 11, 13, 1), id);
    cr_assert_neq(lin_mfa_intern(mfas, 12, 12, 1), id);
}

Test(mfa, entry_says_what_was_interned) {
    const struct lin_mfa *mfa = lin_mfa_at(mfas, lin_mfa_intern(mfas, 21, 22, 3));
    cr_assert_not_null(mfa);
    cr_assert_eq(mfa->module, 21);
    cr_assert_eq(mfa->function, 22);
    cr_assert_eq(mfa->arity, 3);
}

Test(mfa, ids_never_given_have_no_entry) {
    uint32_t id = lin_mfa_intern(mfas, 1, 2, 3);
    cr_assert_null(lin_mfa_at(mfas, 0));
    cr_assert_null(lin_mfa_at(mfas, LIN_MFA_SLOTS));
    cr_assert_null(lin_mfa_at(mfas, UINT32_MAX));
    cr_assert_null(lin_mfa_at(mfas, id == 5 ? 6 : 5));
}

Test(mfa, full_table_answers_0_and_counts) {
    for (uint32_t i = 0; i < LIN_MFA_FULL; i++)
        cr_assert_neq(lin_mfa_intern(mfas, 100 + i, 7, i % 256), 0);
    cr_assert_eq(lin_mfa_intern(mfas, 99, 7, 0), 0);
    cr_assert_eq(lin_mfa_intern(mfas, 99, 7, 0), 0);
    cr_assert_eq(mfas->overflows, 2);
    cr_assert_neq(lin_mfa_intern(mfas, 100, 7, 0), 0, "what is known stays known");
    cr_assert_eq(lin_mfa_classify(mfas, 99, 7, 0, LIN_CLASS_HOST), -ENOSPC);
}

Test(mfa, ids_are_distinct) {
    static bool given[LIN_MFA_SLOTS];
    for (uint32_t i = 0; i < LIN_MFA_FULL; i++) {
        uint32_t id = lin_mfa_intern(mfas, 1 + i / 64, 1 + i % 64, 1);
        cr_assert_lt(id, LIN_MFA_SLOTS);
        cr_assert(!given[id]);
        given[id] = true;
    }
}

Test(mfa, class_before_and_after) {
    cr_assert_eq(lin_mfa_classify(mfas, 1, 2, 3, LIN_CLASS_HOST), 0);
    uint32_t id = lin_mfa_intern(mfas, 1, 2, 3);
    cr_assert_eq(lin_mfa_class(mfas, id), LIN_CLASS_HOST);
    cr_assert_eq(lin_mfa_classify(mfas, 1, 2, 3, LIN_CLASS_ROOT), 0);
    cr_assert_eq(lin_mfa_class(mfas, id), LIN_CLASS_HOST | LIN_CLASS_ROOT);
    cr_assert_eq(lin_mfa_class(mfas, lin_mfa_intern(mfas, 1, 2, 4)), 0);
    cr_assert_eq(lin_mfa_class(mfas, 0), 0);
}

Test(mfa, any_arity_holds_for_known_and_new) {
    uint32_t known = lin_mfa_intern(mfas, 1, 2, 0);
    cr_assert_eq(lin_mfa_classify(mfas, 1, 2, LIN_ARITY_ANY, LIN_CLASS_SERVICE), 0);
    cr_assert_eq(lin_mfa_class(mfas, known), LIN_CLASS_SERVICE);
    cr_assert_eq(lin_mfa_class(mfas, lin_mfa_intern(mfas, 1, 2, 9)), LIN_CLASS_SERVICE);
    cr_assert_eq(lin_mfa_class(mfas, lin_mfa_intern(mfas, 1, 3, 9)), 0);
}

Test(mfa, wildcards_end) {
    for (uint32_t i = 0; i < LIN_MFA_WILDCARDS; i++)
        cr_assert_eq(lin_mfa_classify(mfas, 50 + i, 2, LIN_ARITY_ANY, LIN_CLASS_HOST), 0);
    cr_assert_eq(lin_mfa_classify(mfas, 1, 2, LIN_ARITY_ANY, LIN_CLASS_HOST), -ENOSPC);
    cr_assert_eq(lin_mfa_class(mfas, lin_mfa_intern(mfas, 1, 2, 1)), 0);
}

Test(mfa, no_memory) {
    fake_fail_after = 0;
    cr_assert_null(lin_mfas_create());
    fake_fail_after = -1;
    lin_mfas_destroy(NULL);
}
