/*
 * A C host of libinhouse that has samples run in evald, the sandbox.
 *
 *     evaluate SCRATCH [EVALD]
 *
 * SCRATCH is an empty folder. Without EVALD, the executable, only what needs none is tried. Ends with "ok" and 0 where
 * everything was as the header says, else with the failing line and 1.
 */
#include "host.h"

static const char PROBLEMS[] =
    "{\"task_id\": \"double\", \"prompt\": \"def double(x):\\n\", \"entry_point\": \"double\", "
    "\"test\": \"def check(f):\\n    assert f(3) == 6\\n\"}\n";
#define SAMPLES                                                                                                             \
    "{\"task_id\": \"double\", \"completion\": \"    return x + x\\n\"}\n"                                             \
    "{\"task_id\": \"double\", \"completion\": \"    return x\\n\"}\n"
static const char LARGE_SAMPLE[] =
    "{\"task_id\": \"double\", \"completion\": \"    return x + x + 0 * len(bytearray(200 << 20))\\n\"}\n";

static void write_file(char *room, size_t size, const char *folder, const char *name, const char *text)
{
    FILE *file;
    CHECK(snprintf(room, size, "%s/%s", folder, name) < (int)size);
    file = fopen(room, "w");
    CHECK(file != NULL);
    fputs(text, file);
    CHECK(fclose(file) == 0);
}

static int32_t on_progress(void *user_data, const inhouse_progress *progress)
{
    int *told = user_data;
    CHECK(progress->done <= progress->total || progress->total == 0);
    return ++*told < 0;
}

static int32_t stop(void *user_data, const inhouse_progress *progress)
{
    (void)user_data;
    return progress->kind == INHOUSE_PROGRESS_STARTED;
}

int main(int argc, char **argv)
{
    inhouse_evaluate_params params;
    inhouse_text *text = NULL;
    inhouse_error *error = NULL;
    inhouse_status status;
    char problems[4096], samples[4096];
    uint64_t k[] = {2, 1, 100};
    int told = 0;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: evaluate SCRATCH [EVALD]\n");
        return 2;
    }
    must(inhouse_evaluate_params_init(&params, sizeof params), NULL, "init");
    params.k = k;
    params.n_k = (size_t)-1;
    must_fail(inhouse_evaluate(inhouse_str_of(PROBLEMS), inhouse_str_of(SAMPLES), &params, &text, &error),
              INHOUSE_STATUS_LIMIT_EXCEEDED, &error, "evaluate with endless k");
    params.n_k = 3;
    params.on_progress = on_progress;
    params.user_data = &told;
    status = inhouse_evaluate(inhouse_str_of("{}"), inhouse_str_of(SAMPLES), &params, &text, &error);
    if (status == INHOUSE_STATUS_UNSUPPORTED) {
        must_fail(status, INHOUSE_STATUS_UNSUPPORTED, &error, "evaluate in a build without evald");
        printf("ok\n");
        return 0;
    }
    must_fail(status, INHOUSE_STATUS_INVALID_DATA, &error, "evaluate no problem");
    params.evald = inhouse_str_of("/no/such/evald");
    must_fail(inhouse_evaluate(inhouse_str_of(PROBLEMS), inhouse_str_of(SAMPLES), &params, &text, &error),
              INHOUSE_STATUS_SANDBOX, &error, "evaluate without an evald");
    params.socket = inhouse_str_of("/no/such/socket");
    must_fail(inhouse_evaluate(inhouse_str_of(PROBLEMS), inhouse_str_of(SAMPLES), &params, &text, &error),
              INHOUSE_STATUS_SANDBOX, &error, "evaluate at a socket that is not there");
    params.socket = inhouse_str_of(NULL);
    params.rows = inhouse_str_of("-");
    must_fail(inhouse_evaluate(inhouse_str_of(PROBLEMS), inhouse_str_of(SAMPLES), &params, &text, &error),
              INHOUSE_STATUS_INVALID_ARGUMENT, &error, "evaluate onto standard output");
    params.rows = inhouse_str_of(NULL);
    params.tier = inhouse_str_of("T9");
    must_fail(inhouse_evaluate(inhouse_str_of(PROBLEMS), inhouse_str_of(SAMPLES), &params, &text, &error),
              INHOUSE_STATUS_INVALID_ARGUMENT, &error, "evaluate in tier T9");
    params.tier = inhouse_str_of(NULL);
    params.limits = inhouse_str_of("memory=much");
    must_fail(inhouse_evaluate(inhouse_str_of(PROBLEMS), inhouse_str_of(SAMPLES), &params, &text, &error),
              INHOUSE_STATUS_INVALID_ARGUMENT, &error, "evaluate with a limit that is none");
    params.limits = inhouse_str_of(NULL);
    params.trust = inhouse_str_of("blind");
    must_fail(inhouse_evaluate(inhouse_str_of(PROBLEMS), inhouse_str_of(SAMPLES), &params, &text, &error),
              INHOUSE_STATUS_INVALID_ARGUMENT, &error, "evaluate with a trust that is none");
    params.trust = inhouse_str_of(NULL);
    must_fail(inhouse_evaluate_files(inhouse_str_of("/no/such/file"), inhouse_str_of("-"), &params, &text, &error),
              INHOUSE_STATUS_NOT_FOUND, &error, "evaluate files that are not there");
    if (argc == 2) {
        printf("ok\n");
        return 0;
    }

    params.evald = inhouse_str_of(argv[2]);
    must(inhouse_evaluate(inhouse_str_of(PROBLEMS), inhouse_str_of(SAMPLES), &params, &text, &error), &error, "evaluate");
    CHECK(strstr(inhouse_text_view(text).data, "{\"pass@1\":0.5,\"pass@2\":1.0,\"problems\":1,\"samples\":2") != NULL);
    CHECK(strstr(inhouse_text_view(text).data, "\"verdict\":\"failed\"") != NULL && says(text, "\"verdict\":\"passed\""));
    CHECK(told > 2);
    write_file(problems, sizeof problems, argv[1], "problems.jsonl", PROBLEMS);
    write_file(samples, sizeof samples, argv[1], "samples.jsonl", SAMPLES);
    must(inhouse_evaluate_files(inhouse_str_of(problems), inhouse_str_of(samples), &params, &text, &error), &error,
         "evaluate files");
    CHECK(says(text, "\"verdicts\":{\"failed\":1,\"passed\":1}"));
    /* A row that is no sample fails alone. */
    must(inhouse_evaluate(inhouse_str_of(PROBLEMS), inhouse_str_of(SAMPLES "{\"task_id\": 7}\n"), &params, &text, &error), &error,
         "evaluate with a row that is no sample");
    CHECK(says(text, "\"verdicts\":{\"failed\":1,\"infra_error\":1,\"passed\":1}"));
    /* Limits are those of the call: the program takes more than this. */
    params.limits = inhouse_str_of("memory=64MiB,output=1k,allow=processes");
    must(inhouse_evaluate(inhouse_str_of(PROBLEMS), inhouse_str_of(LARGE_SAMPLE), &params, &text, &error), &error,
         "evaluate within limits");
    CHECK(says(text, "\"verdicts\":{\"oom\":1}"));
    params.limits = inhouse_str_of(NULL);
    must(inhouse_evaluate(inhouse_str_of(PROBLEMS), inhouse_str_of(LARGE_SAMPLE), &params, &text, &error), &error,
         "evaluate within the usual limits");
    CHECK(says(text, "\"verdicts\":{\"passed\":1}"));
    params.on_progress = stop;
    must_fail(inhouse_evaluate_files(inhouse_str_of(problems), inhouse_str_of(samples), &params, &text, &error),
              INHOUSE_STATUS_CANCELLED, &error, "evaluate, stopped");
    printf("ok\n");
    return 0;
}
