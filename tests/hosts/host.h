/* What the C hosts of the tests share: checks that end the program, and the library's own words where a call fails. */
#ifndef HOST_H
#define HOST_H

#include <inhouse.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);       \
            exit(1);                                                                      \
        }                                                                                 \
    } while (0)

/*
 * Fails with the library's own words. `error` is the place that the call was given, not its content: C does not say
 * whether an argument is read before or after the call beside it.
 */
static inline void must(inhouse_status status, inhouse_error **error, const char *what)
{
    inhouse_str message = inhouse_error_message(error != NULL ? *error : NULL);
    if (status == INHOUSE_STATUS_OK) {
        CHECK(error == NULL || *error == NULL);
        return;
    }
    fprintf(stderr, "%s: %s: %s\n", what, inhouse_status_name(status), message.data ? message.data : "(no error)");
    exit(1);
}

/* The call failed as it had to, and says so in words. */
static inline void must_fail(inhouse_status status, inhouse_status expected, inhouse_error **error, const char *what)
{
    inhouse_str message = inhouse_error_message(*error);
    printf("  %s: %s: %s\n", what, inhouse_status_name(status), message.data ? message.data : "(no error)");
    CHECK(status == expected);
    CHECK(inhouse_error_status(*error) == expected);
    CHECK(message.data != NULL && message.len == strlen(message.data) && message.len > 0);
    CHECK(inhouse_error_free(*error) == INHOUSE_STATUS_OK);
    *error = NULL;
}

static inline int is(inhouse_str view, const char *text)
{
    return view.data != NULL && view.len == strlen(text) && memcmp(view.data, text, view.len) == 0;
}

/* Prints a text, says whether it holds `part`, and frees it. */
static inline int says(inhouse_text *text, const char *part)
{
    inhouse_str view = inhouse_text_view(text);
    int found = view.data != NULL && strstr(view.data, part) != NULL;
    printf("  %s\n", view.data ? view.data : "(none)");
    CHECK(inhouse_text_free(text) == INHOUSE_STATUS_OK);
    return found;
}

#endif
