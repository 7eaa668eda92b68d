/*
 * A C host of libinhouse that makes its own index: documentation read, an index built, updated and opened anew, with
 * progress, a cancel, and the library's log.
 *
 *     index SOURCE SCRATCH
 *
 * SOURCE is a package folder, SCRATCH an empty folder. Ends with "ok" and 0 where everything was as the header says, else
 * with the failing line and 1.
 */
#include "host.h"

/* What the callbacks have seen. */
struct seen {
    int started, advanced, finished, notes;
    int stop; /* whether to end the work at the first word of it */
    inhouse_cancel *cancel;
    uint64_t done, total;
};

static int32_t on_progress(void *user_data, const inhouse_progress *progress)
{
    struct seen *seen = user_data;
    CHECK(progress->struct_size >= sizeof *progress);
    CHECK(progress->text.data != NULL && progress->text.data[progress->text.len] == '\0');
    switch (progress->kind) {
    case INHOUSE_PROGRESS_STARTED:
        seen->started++;
        break;
    case INHOUSE_PROGRESS_ADVANCED:
        seen->advanced++;
        break;
    case INHOUSE_PROGRESS_FINISHED:
        seen->finished++;
        break;
    case INHOUSE_PROGRESS_NOTE:
        seen->notes++;
        break;
    default:
        break;
    }
    seen->done = progress->done;
    seen->total = progress->total;
    if (seen->cancel != NULL)
        CHECK(inhouse_cancel_set(seen->cancel) == INHOUSE_STATUS_OK);
    return seen->stop;
}

static void on_log(void *user_data, const inhouse_log_record *record)
{
    size_t *n = user_data;
    CHECK(record->struct_size >= sizeof *record && record->level >= INHOUSE_LOG_ERROR && record->level <= INHOUSE_LOG_DEBUG);
    CHECK(record->message.data != NULL && record->target.data != NULL && record->target.len > 0);
    (void)n; /* what is logged depends on the machine: that a callback can be set and taken away is what is tested */
    CHECK(inhouse_log_set(INHOUSE_LOG_OFF, NULL, NULL, NULL) == INHOUSE_STATUS_BUSY);
}

static inhouse_str in(char *room, size_t size, const char *folder, const char *name)
{
    CHECK(snprintf(room, size, "%s/%s", folder, name) < (int)size);
    return inhouse_str_of(room);
}

int main(int argc, char **argv)
{
    inhouse_index_params params;
    inhouse_engine_params engine_params;
    inhouse_engine *engine = NULL, *fresh = NULL, *none = NULL;
    inhouse_cancel *cancel = NULL;
    inhouse_apis *apis = NULL;
    inhouse_text *text = NULL;
    inhouse_error *error = NULL;
    inhouse_str sources[1], folder, rows, more, broken;
    char rooms[4][4096];
    struct seen seen;
    size_t logged = 0;
    FILE *file;

    if (argc != 3) {
        fprintf(stderr, "usage: index SOURCE SCRATCH\n");
        return 2;
    }
    folder = in(rooms[0], sizeof rooms[0], argv[2], "index");
    rows = in(rooms[1], sizeof rooms[1], argv[2], "apis.jsonl");
    more = in(rooms[2], sizeof rooms[2], argv[2], "more.jsonl");
    broken = in(rooms[3], sizeof rooms[3], argv[2], "broken.jsonl");
    memset(&seen, 0, sizeof seen);

    must(inhouse_log_set(INHOUSE_LOG_DEBUG, on_log, &logged, &error), &error, "log");
    must_fail(inhouse_log_set(77, on_log, &logged, &error), INHOUSE_STATUS_INVALID_ARGUMENT, &error, "log at 77");

    /* Documentation into a file. */
    must(inhouse_index_params_init(&params, sizeof params), NULL, "init");
    must_fail(inhouse_docs_read(rows, &params, &text, &error), INHOUSE_STATUS_INVALID_ARGUMENT, &error, "read nothing");
    sources[0] = inhouse_str_of(argv[1]);
    params.sources = sources;
    params.n_sources = 1;
    params.on_progress = on_progress;
    params.user_data = &seen;
    must(inhouse_docs_read(rows, &params, &text, &error), &error, "read documentation");
    CHECK(says(text, "\"skipped\":[]"));
    CHECK(seen.started > 0 && seen.finished == seen.started && seen.done == seen.total && seen.total > 0);

    /* An index of it. Ended by the callback or by a token there is none; then there is one. */
    sources[0] = rows;
    memset(&seen, 0, sizeof seen);
    seen.stop = 1;
    must_fail(inhouse_index_build(folder, &params, &text, &error), INHOUSE_STATUS_CANCELLED, &error, "build, stopped");
    must(inhouse_cancel_new(&cancel, &error), &error, "cancel");
    memset(&seen, 0, sizeof seen);
    seen.cancel = cancel;
    params.cancel = cancel;
    must_fail(inhouse_index_build(folder, &params, &text, &error), INHOUSE_STATUS_CANCELLED, &error, "build, cancelled");
    must_fail(inhouse_index_info(folder, &text, &error), INHOUSE_STATUS_NOT_FOUND, &error, "info of no index");
    CHECK(inhouse_cancel_free(cancel) == INHOUSE_STATUS_OK);
    params.cancel = NULL;
    memset(&seen, 0, sizeof seen);
    must(inhouse_index_build(folder, &params, &text, &error), &error, "build");
    CHECK(says(text, "\"generation\":"));
    CHECK(seen.started > 0 && seen.advanced > 0 && seen.finished == seen.started);
    must(inhouse_index_info(folder, &text, &error), &error, "info of an index");
    CHECK(says(text, "\"libraries\":{"));

    must(inhouse_engine_params_init(&engine_params, sizeof engine_params), NULL, "init");
    engine_params.index = folder;
    must(inhouse_engine_open(&engine_params, &engine, &error), &error, "open");

    /* An update; the engine that was open keeps what it opened, a fresh one has the new state. */
    file = fopen(more.data, "w");
    CHECK(file != NULL);
    fputs("{\"name\": \"unravel_yarn\", \"qualified_name\": \"yarns.unravel_yarn\", \"signature\": \"(length)\", "
          "\"description\": \"Unravels a yarn into its threads.\"}\n", file);
    CHECK(fclose(file) == 0);
    sources[0] = more;
    must(inhouse_index_update(folder, &params, &text, &error), &error, "update");
    CHECK(says(text, "{\"added\":1,\"replaced\":0,\"removed\":0"));
    must(inhouse_engine_with_index(engine, folder, &fresh, &error), &error, "with_index");
    must(inhouse_engine_retrieve(fresh, inhouse_str_of("unravel a yarn"), 1, &apis, &error), &error, "retrieve");
    CHECK(is(inhouse_apis_name(apis, 0), "unravel_yarn"));
    CHECK(inhouse_apis_free(apis) == INHOUSE_STATUS_OK);
    must(inhouse_engine_retrieve(engine, inhouse_str_of("unravel a yarn"), 1, &apis, &error), &error, "retrieve");
    CHECK(!is(inhouse_apis_name(apis, 0), "unravel_yarn"));
    CHECK(inhouse_apis_free(apis) == INHOUSE_STATUS_OK);
    must_fail(inhouse_engine_with_index(engine, rows, &none, &error), INHOUSE_STATUS_INVALID_DATA, &error,
              "with_index of a file");
    CHECK(none == NULL);

    /* Faults are named by file and line, and the index is as it was. */
    file = fopen(broken.data, "w");
    CHECK(file != NULL);
    fputs("{\"name\": \"f\"}\nnot a row\n", file);
    CHECK(fclose(file) == 0);
    sources[0] = broken;
    must_fail(inhouse_index_update(folder, &params, &text, &error), INHOUSE_STATUS_INVALID_DATA, &error, "update, broken");
    sources[0] = inhouse_str_of("-");
    must_fail(inhouse_index_build(folder, &params, NULL, &error), INHOUSE_STATUS_INVALID_ARGUMENT, &error, "build from stdin");
    sources[0] = inhouse_str_of("/dev/zero");
    must_fail(inhouse_index_build(folder, &params, NULL, &error), INHOUSE_STATUS_INVALID_DATA, &error, "build from a device");
    sources[0] = inhouse_str_of("/no/such/source");
    must_fail(inhouse_docs_read(rows, &params, NULL, &error), INHOUSE_STATUS_NOT_FOUND, &error, "read what is not there");
    params.n_sources = (size_t)-1;
    must_fail(inhouse_docs_read(rows, &params, NULL, &error), INHOUSE_STATUS_LIMIT_EXCEEDED, &error, "read too much");
    must(inhouse_index_info(folder, &text, &error), &error, "info of an index");
    CHECK(says(text, "\"yarns\":1"));

    must(inhouse_log_set(INHOUSE_LOG_OFF, NULL, NULL, &error), &error, "no log");
    CHECK(inhouse_engine_release(engine) == INHOUSE_STATUS_OK && inhouse_engine_release(fresh) == INHOUSE_STATUS_OK);
    printf("ok\n");
    return 0;
}
