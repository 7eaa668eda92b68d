/*
 * A C host whose model runs in a process of its own, which it kills: calls return errors, and the host lives on.
 *
 *     worker MODEL PROGRAM
 *
 * PROGRAM is inhouse-worker. Ends with "ok" and 0 where everything was as the header says, else with the failing line and 1.
 */
#define _POSIX_C_SOURCE 200809L
#include "host.h"

#include <signal.h>

static inhouse_engine *open_engine(const char *model, const char *program)
{
    inhouse_engine_params params;
    inhouse_engine *engine = NULL;
    inhouse_error *error = NULL;
    must(inhouse_engine_params_init(&params, sizeof params), NULL, "init");
    params.model = inhouse_str_of(model);
    params.worker = program != NULL;
    params.worker_program = inhouse_str_of(program);
    params.threads = 1;
    must(inhouse_engine_open(&params, &engine, &error), &error, "open");
    return engine;
}

static inhouse_completion *complete(inhouse_session *session)
{
    inhouse_complete_params params;
    inhouse_completion *completion = NULL;
    inhouse_error *error = NULL;
    must(inhouse_complete_params_init(&params, sizeof params), NULL, "init");
    params.max_tokens = 12;
    params.stop_choice = INHOUSE_STOPS_NONE;
    must(inhouse_session_complete(session, inhouse_str_of("def load(path):\n    "), &params, &completion, &error), &error,
         "complete");
    return completion;
}

static long worker_pid(inhouse_engine *engine)
{
    inhouse_text *info = NULL;
    inhouse_error *error = NULL;
    const char *pid;
    long number;
    must(inhouse_engine_info(engine, &info, &error), &error, "info");
    pid = strstr(inhouse_text_view(info).data, "\"worker\":{\"pid\":");
    CHECK(pid != NULL);
    number = strtol(pid + strlen("\"worker\":{\"pid\":"), NULL, 10);
    CHECK(inhouse_text_free(info) == INHOUSE_STATUS_OK && number > 1);
    return number;
}

int main(int argc, char **argv)
{
    inhouse_engine_params params;
    inhouse_engine *engines[2], *none = NULL;
    inhouse_session *sessions[2] = {NULL, NULL};
    inhouse_completion *completions[2], *again = NULL;
    inhouse_error *error = NULL;
    int i;

    if (argc != 3) {
        fprintf(stderr, "usage: worker MODEL PROGRAM\n");
        return 2;
    }
    for (i = 0; i < 2; i++) {
        engines[i] = open_engine(argv[1], i == 1 ? argv[2] : NULL);
        must(inhouse_session_open(engines[i], NULL, &sessions[i], &error), &error, "open a session");
        completions[i] = complete(sessions[i]);
    }
    CHECK(is(inhouse_completion_text(completions[0], 0), inhouse_completion_text(completions[1], 0).data));

    /* Whatever ends the other process is an error here; only its sessions are gone. */
    CHECK(kill((pid_t)worker_pid(engines[1]), SIGKILL) == 0);
    must_fail(inhouse_session_complete(sessions[1], inhouse_str_of("x = "), NULL, &again, &error), INHOUSE_STATUS_BACKEND,
              &error, "complete with a dead worker");
    must_fail(inhouse_session_complete(sessions[1], inhouse_str_of("x = "), NULL, &again, &error), INHOUSE_STATUS_POISONED,
              &error, "complete once more");
    CHECK(inhouse_session_close(sessions[1]) == INHOUSE_STATUS_OK);
    must(inhouse_session_open(engines[1], NULL, &sessions[1], &error), &error, "open a session on a new worker");
    again = complete(sessions[1]);
    CHECK(is(inhouse_completion_text(again, 0), inhouse_completion_text(completions[0], 0).data));
    inhouse_completion_free(again);

    must(inhouse_engine_params_init(&params, sizeof params), NULL, "init");
    params.model = inhouse_str_of(argv[1]);
    params.worker = 1;
    params.worker_program = inhouse_str_of("/no/such/program");
    must_fail(inhouse_engine_open(&params, &none, &error), INHOUSE_STATUS_NOT_FOUND, &error, "open with no worker");
    params.worker = 7;
    must_fail(inhouse_engine_open(&params, &none, &error), INHOUSE_STATUS_INVALID_ARGUMENT, &error, "open with worker 7");

    for (i = 0; i < 2; i++) {
        CHECK(inhouse_completion_free(completions[i]) == INHOUSE_STATUS_OK);
        CHECK(inhouse_session_close(sessions[i]) == INHOUSE_STATUS_OK);
        CHECK(inhouse_engine_release(engines[i]) == INHOUSE_STATUS_OK);
    }
    printf("ok\n");
    return 0;
}
