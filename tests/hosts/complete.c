/*
 * A C host of libinhouse: retrieves from an index, completes code with a model, and misuses the library on purpose.
 *
 *     complete INDEX [MODEL]
 *
 * Prints what came out; ends with "ok" and 0 where everything was as the header says, else with the failing line and 1.
 */
#include "host.h"

/* What the callback has seen. */
struct seen {
    char *text; /* of completion 0, streamed */
    size_t len;
    int n_texts;
    int n_finished;
    int stop_after; /* texts, 0: never */
    inhouse_session *session;
    inhouse_finish_reason reason;
};

static int32_t on_event(void *user_data, const inhouse_event *event)
{
    struct seen *seen = user_data;
    CHECK(event->struct_size >= sizeof *event);
    if (event->kind == INHOUSE_EVENT_TEXT) {
        CHECK(event->text.len > 0 && event->text.data[event->text.len] == '\0');
        if (event->completion_idx == 0) {
            char *grown = realloc(seen->text, seen->len + event->text.len + 1);
            CHECK(grown != NULL);
            memcpy(grown + seen->len, event->text.data, event->text.len + 1);
            seen->text = grown;
            seen->len += event->text.len;
        }
        seen->n_texts++;
        /* A session serves one call at a time, its own callback's included. */
        CHECK(inhouse_session_complete(seen->session, inhouse_str_of("x"), NULL, NULL, NULL) == INHOUSE_STATUS_BUSY);
    } else if (event->kind == INHOUSE_EVENT_FINISHED) {
        seen->n_finished++;
        seen->reason = (inhouse_finish_reason)event->finish_reason;
    }
    return seen->stop_after != 0 && seen->n_texts >= seen->stop_after;
}

static void retrieve(inhouse_engine *engine)
{
    inhouse_apis *apis = NULL;
    inhouse_text *why = NULL;
    inhouse_error *error = NULL;
    size_t i, n;
    must(inhouse_engine_retrieve(engine, inhouse_str_of("open the ledger"), 3, &apis, &error), &error, "retrieve");
    n = inhouse_apis_count(apis);
    CHECK(n >= 1 && n <= 3);
    for (i = 0; i < n; i++) {
        printf("  %.3f %s%s: %s\n", inhouse_apis_score(apis, i), inhouse_apis_qualified_name(apis, i).data,
               inhouse_apis_signature(apis, i).data, inhouse_apis_description(apis, i).data);
    }
    CHECK(is(inhouse_apis_name(apis, 0), "open_ledger"));
    CHECK(inhouse_apis_json(apis, 0).data[0] == '{');
    CHECK(inhouse_apis_name(apis, n).data == NULL);
    CHECK(inhouse_apis_free(apis) == INHOUSE_STATUS_OK);

    must(inhouse_engine_explain(engine, inhouse_str_of("open the ledger"), 3, &why, &error), &error, "explain");
    CHECK(strstr(inhouse_text_view(why).data, "open_ledger") != NULL);
    CHECK(inhouse_text_free(why) == INHOUSE_STATUS_OK);
    must_fail(inhouse_engine_explain(engine, inhouse_str_of("x"), 0, &why, &error), INHOUSE_STATUS_INVALID_ARGUMENT,
              &error, "explain 0");

    must_fail(inhouse_engine_retrieve(engine, inhouse_str_of("x"), 0, &apis, &error), INHOUSE_STATUS_INVALID_ARGUMENT,
              &error, "retrieve 0");
    CHECK(apis == NULL);
    must_fail(inhouse_engine_retrieve(engine, inhouse_str_of("\xff\xfe"), 1, &apis, &error),
              INHOUSE_STATUS_INVALID_ARGUMENT, &error, "retrieve with a query that is not UTF-8");
}

static void describe(inhouse_engine *engine)
{
    inhouse_text *info = NULL;
    inhouse_error *error = NULL;
    must(inhouse_engine_info(engine, &info, &error), &error, "info");
    printf("  %s\n", inhouse_text_view(info).data);
    CHECK(strstr(inhouse_text_view(info).data, "\"resident_bytes\":") != NULL);
    CHECK(inhouse_text_free(info) == INHOUSE_STATUS_OK);
    CHECK(inhouse_text_free(info) == INHOUSE_STATUS_INVALID_HANDLE);
    CHECK(inhouse_text_view(info).data == NULL);
}

/* The choice of Figure 4: what fits is shown, a person chooses, the model reads what was chosen. */
static void choose(inhouse_engine *engine, inhouse_session *session)
{
    inhouse_complete_params params;
    inhouse_completion *completion = NULL;
    inhouse_apis *offered = NULL, *other = NULL, *chosen = NULL, *both = NULL, *in_prompt = NULL;
    inhouse_text *query = NULL;
    inhouse_error *error = NULL;
    inhouse_str context = inhouse_str_of("# open the ledger of May\nledger =");
    inhouse_str unset = inhouse_str_of(NULL);
    size_t first[] = {0, 0}, beyond[] = {9};
    size_t i;

    must(inhouse_query_of_context(context, &query, &error), &error, "query");
    CHECK(says(query, "open the ledger of May"));
    must_fail(inhouse_query_of_context(unset, &query, &error), INHOUSE_STATUS_INVALID_ARGUMENT, &error, "query of nothing");
    must(inhouse_engine_propose(engine, context, unset, 5, &offered, &error), &error, "propose");
    for (i = 0; i < inhouse_apis_count(offered); i++)
        printf("  %zu  %s\n", i + 1, inhouse_apis_label(offered, i).data);
    CHECK(is(inhouse_apis_label(offered, 0), "ledgers.open_ledger(path): Opens a ledger."));
    CHECK(inhouse_apis_label(offered, i).data == NULL);
    must_fail(inhouse_engine_propose(engine, unset, unset, 5, &other, &error), INHOUSE_STATUS_INVALID_ARGUMENT, &error,
              "propose for nothing");
    /* A query of one's own, and something chosen of both answers. */
    must(inhouse_engine_propose(engine, context, inhouse_str_of("sum a month"), 5, &other, &error), &error, "own query");
    CHECK(is(inhouse_apis_name(other, 0), "tally"));
    must_fail(inhouse_apis_select(offered, beyond, 1, &chosen, &error), INHOUSE_STATUS_INVALID_ARGUMENT, &error,
              "choose the tenth");
    must_fail(inhouse_apis_select(offered, NULL, 1, &chosen, &error), INHOUSE_STATUS_INVALID_ARGUMENT, &error,
              "choose from NULL");
    must(inhouse_apis_select(offered, first, 2, &chosen, &error), &error, "choose");
    CHECK(inhouse_apis_count(chosen) == 1);
    must(inhouse_apis_join(chosen, other, &both, &error), &error, "join");
    CHECK(inhouse_apis_count(both) == 1 + inhouse_apis_count(other) && is(inhouse_apis_name(both, 1), "tally"));
    CHECK(inhouse_apis_free(chosen) == INHOUSE_STATUS_OK && inhouse_apis_free(offered) == INHOUSE_STATUS_OK);

    if (session == NULL)
        goto done;
    must(inhouse_complete_params_init(&params, sizeof params), NULL, "init");
    params.api_choice = INHOUSE_APIS_GIVEN;
    params.apis = both;
    params.max_tokens = 4;
    must(inhouse_session_complete(session, context, &params, &completion, &error), &error, "complete with the chosen");
    must(inhouse_completion_apis(completion, &in_prompt, &error), &error, "apis of a completion");
    CHECK(inhouse_apis_count(in_prompt) == inhouse_apis_count(both));
    CHECK(strstr(inhouse_completion_prompt(completion).data, "# tally(path): Sums the entries of a month.") != NULL);
    inhouse_apis_free(in_prompt);
    inhouse_completion_free(completion);
    /* None of the above. */
    must(inhouse_apis_select(both, NULL, 0, &chosen, &error), &error, "choose none");
    CHECK(inhouse_apis_count(chosen) == 0);
    params.apis = chosen;
    must(inhouse_session_complete(session, context, &params, &completion, &error), &error, "complete with none");
    CHECK(is(inhouse_completion_prompt(completion), context.data));
    inhouse_completion_free(completion);
    inhouse_apis_free(chosen);
    must_fail(inhouse_session_complete(session, context, &params, &completion, &error), INHOUSE_STATUS_INVALID_HANDLE,
              &error, "complete with a freed list");
done:
    inhouse_apis_free(both);
    inhouse_apis_free(other);
}

/* Decoding held to the names of the index, and what is said of tokens and APIs. */
static void constrain(inhouse_engine *engine, inhouse_session *session)
{
    inhouse_complete_params params;
    inhouse_completion *completion = NULL;
    inhouse_text *text = NULL;
    inhouse_error *error = NULL;
    inhouse_str context = inhouse_str_of("import ledgers\nledger = ledgers.");
    const float *values;
    size_t i, n = 99;

    must(inhouse_complete_params_init(&params, sizeof params), NULL, "init");
    params.constrain = 1;
    params.log_probabilities = 1;
    params.min_p = 0.05f;
    params.repetition_penalty = 1.1f;
    params.top_k = 50;
    params.max_tokens = 8;
    must(inhouse_session_complete(session, context, &params, &completion, &error), &error, "complete, constrained");
    values = inhouse_completion_log_probabilities(completion, 0, &n);
    CHECK(values != NULL && n == inhouse_completion_tokens(completion, 0));
    for (i = 0; i < n; i++)
        CHECK(values[i] <= 0.0f);
    CHECK(inhouse_completion_log_probabilities(completion, 1, &n) == NULL && n == 0);
    CHECK(inhouse_completion_log_probabilities(completion, 0, NULL) == NULL);
    must(inhouse_completion_json(completion, &text, &error), &error, "json of a completion");
    CHECK(strstr(inhouse_text_view(text).data, "\"logprobs\":[") != NULL && says(text, "\"masked\":"));
    must(inhouse_engine_api_report(engine, context, inhouse_completion_text(completion, 0), &text, &error), &error, "report");
    CHECK(says(text, "\"unknown\":0"));
    must(inhouse_engine_api_report(engine, context, inhouse_str_of("open_leger(1)\n"), &text, &error), &error, "report");
    CHECK(says(text, "ledgers.open_leger"));
    inhouse_completion_free(completion);
    /* A model that was not trained to fill in says so, and a template must be one. */
    params.constrain = 0;
    params.suffix = inhouse_str_of("\nledger.close()\n");
    must_fail(inhouse_session_complete(session, context, &params, &completion, &error), INHOUSE_STATUS_UNSUPPORTED, &error,
              "complete between two pieces of code");
    params.suffix = inhouse_str_of(NULL);
    params.chat = INHOUSE_CHAT_GIVEN;
    params.chat_template = inhouse_str_of("{% if %}");
    must_fail(inhouse_session_complete(session, context, &params, &completion, &error), INHOUSE_STATUS_INVALID_DATA, &error,
              "complete in a chat without a sound template");
    params.chat_template = inhouse_str_of("{{ messages[-1].content }}");
    params.log_probabilities = 0;
    must(inhouse_session_complete(session, context, &params, &completion, &error), &error, "complete in a chat");
    must(inhouse_completion_json(completion, &text, &error), &error, "json of a completion");
    CHECK(says(text, "\"format\":\"chat\""));
    inhouse_completion_free(completion);
    params.chat = INHOUSE_CHAT_NONE;
    params.constrain = 2;
    must_fail(inhouse_session_complete(session, context, &params, &completion, &error), INHOUSE_STATUS_INVALID_ARGUMENT,
              &error, "complete, constrained by 2");
}

/* Prompts kept from call to call, in a file from one session to another. */
static void keep(inhouse_engine *engine, const char *file)
{
    inhouse_session *sessions[2] = {NULL, NULL};
    inhouse_complete_params params;
    inhouse_completion *completion = NULL;
    inhouse_text *text = NULL;
    inhouse_error *error = NULL;
    inhouse_str context = inhouse_str_of("# a beginning that is long enough to be worth keeping from one call to the next\n"
                                         "import ledgers\nimport datetime\nimport collections\nledger =");
    size_t n = 99, shared;
    int i;

    must(inhouse_complete_params_init(&params, sizeof params), NULL, "init");
    params.max_tokens = 2;
    for (i = 0; i < 2; i++) {
        must(inhouse_session_open(engine, NULL, &sessions[i], &error), &error, "open a session");
        if (i == 1) {
            must(inhouse_session_load_prefixes(sessions[1], inhouse_str_of(file), &n, &error), &error, "load");
            CHECK(n == 1);
        }
        must(inhouse_session_complete(sessions[i], context, &params, &completion, &error), &error, "complete");
        shared = inhouse_completion_prompt_tokens_shared(completion);
        CHECK((shared > 0) == (i == 1) && shared < inhouse_completion_prompt_tokens(completion));
        inhouse_completion_free(completion);
        if (i == 0)
            must(inhouse_session_save_prefixes(sessions[0], inhouse_str_of(file), &error), &error, "save");
    }
    must(inhouse_session_info(sessions[1], &text, &error), &error, "info of a session");
    CHECK(says(text, "\"kept_prompts\":1"));
    must_fail(inhouse_session_save_prefixes(sessions[1], inhouse_str_of("/no/such/folder/x"), &error),
              INHOUSE_STATUS_NOT_FOUND, &error, "save prompts where they cannot be");
    must_fail(inhouse_session_load_prefixes(sessions[1], inhouse_str_of("/no/such/file"), &n, &error),
              INHOUSE_STATUS_NOT_FOUND, &error, "load prompts that are not there");
    must_fail(inhouse_session_load_prefixes(sessions[1], inhouse_str_of("/dev/zero"), &n, &error),
              INHOUSE_STATUS_INVALID_DATA, &error, "load prompts from a device");
    CHECK(n == 0);
    for (i = 0; i < 2; i++)
        CHECK(inhouse_session_close(sessions[i]) == INHOUSE_STATUS_OK);
    must_fail(inhouse_session_info(sessions[0], &text, &error), INHOUSE_STATUS_INVALID_HANDLE, &error, "info of what is closed");
}

static void complete(inhouse_session *session)
{
    inhouse_complete_params params;
    inhouse_completion *completion = NULL;
    inhouse_cancel *cancel = NULL;
    inhouse_apis *apis = NULL;
    inhouse_error *error = NULL;
    inhouse_str names[1];
    inhouse_str context = inhouse_str_of("# open the ledger of May\nledger =");
    inhouse_str text;
    char *first;
    struct seen seen = {0};

    seen.session = session;
    CHECK(inhouse_complete_params_init(&params, sizeof params) == INHOUSE_STATUS_OK);
    params.api_choice = INHOUSE_APIS_TOP;
    params.n_apis = 2;
    params.max_tokens = 12;
    params.seed = 7;
    params.stop_choice = INHOUSE_STOPS_NONE;
    params.on_event = on_event;
    params.user_data = &seen;
    must(inhouse_session_complete(session, context, &params, &completion, &error), &error, "complete");
    text = inhouse_completion_text(completion, 0);
    printf("  prompt (%zu tokens, %.3f s):\n%s\n", inhouse_completion_prompt_tokens(completion),
           inhouse_completion_prefill_seconds(completion), inhouse_completion_prompt(completion).data);
    printf("  completion (%zu tokens, %.3f s): %s\n", inhouse_completion_tokens(completion, 0),
           inhouse_completion_decode_seconds(completion), text.data);
    CHECK(inhouse_completion_count(completion) == 1);
    CHECK(inhouse_completion_text(completion, 1).data == NULL);
    CHECK(inhouse_completion_context_truncated(completion) == 0);
    CHECK(seen.n_finished == 1 && seen.reason == inhouse_completion_finish_reason(completion, 0));
    CHECK(seen.len == text.len && (text.len == 0 || memcmp(seen.text, text.data, text.len) == 0));
    must(inhouse_completion_apis(completion, &apis, &error), &error, "apis of a completion");
    CHECK(inhouse_apis_count(apis) >= 1 && is(inhouse_apis_name(apis, 0), "open_ledger"));
    inhouse_completion_free(completion);
    CHECK(is(inhouse_apis_name(apis, 0), "open_ledger")); /* the list stands by itself */
    inhouse_apis_free(apis);
    first = seen.text;

    /* The same seed gives the same text; a stop from the callback ends it early. */
    memset(&seen, 0, sizeof seen);
    seen.session = session;
    seen.stop_after = 1;
    must(inhouse_session_complete(session, context, &params, &completion, &error), &error, "complete, stopped");
    if (seen.n_texts == 1) {
        CHECK(strncmp(first, seen.text, seen.len) == 0);
        CHECK(inhouse_completion_finish_reason(completion, 0) == INHOUSE_FINISH_CANCELLED);
    }
    inhouse_completion_free(completion);
    free(seen.text);
    free(first);

    /* Named APIs, two completions, events only. */
    memset(&seen, 0, sizeof seen);
    seen.session = session;
    names[0] = inhouse_str_of("close_ledger");
    params.api_choice = INHOUSE_APIS_NAMED;
    params.api_names = names;
    params.n_apis = 1;
    params.n_completions = 2;
    must(inhouse_session_complete(session, context, &params, NULL, &error), &error, "complete, events only");
    CHECK(seen.n_finished == 2);
    free(seen.text);
    params.on_event = NULL;
    params.n_completions = 1;

    names[0] = inhouse_str_of("no_such_api");
    must_fail(inhouse_session_complete(session, context, &params, &completion, &error), INHOUSE_STATUS_NOT_FOUND, &error,
              "complete with an API that is not in the index");
    CHECK(completion == NULL);
    params.api_choice = INHOUSE_APIS_NONE;

    /* A token that is set beforehand: an error, or a completion that says so. */
    must(inhouse_cancel_new(&cancel, &error), &error, "cancel");
    CHECK(inhouse_cancel_set(cancel) == INHOUSE_STATUS_OK && inhouse_cancel_is_set(cancel) == 1);
    params.cancel = cancel;
    switch (inhouse_session_complete(session, context, &params, &completion, NULL)) {
    case INHOUSE_STATUS_CANCELLED:
        break;
    case INHOUSE_STATUS_OK:
        CHECK(inhouse_completion_finish_reason(completion, 0) == INHOUSE_FINISH_CANCELLED);
        break;
    default:
        CHECK(!"a cancelled completion");
    }
    inhouse_completion_free(completion);
    CHECK(inhouse_cancel_reset(cancel) == INHOUSE_STATUS_OK && inhouse_cancel_is_set(cancel) == 0);

    /* With the flag cleared and no hurry it completes again, to the end. */
    params.timeout_ms = 600000;
    must(inhouse_session_complete(session, context, &params, &completion, &error), &error, "complete again");
    CHECK(inhouse_completion_finish_reason(completion, 0) != INHOUSE_FINISH_CANCELLED);
    inhouse_completion_free(completion);
    CHECK(inhouse_cancel_free(cancel) == INHOUSE_STATUS_OK);
    must_fail(inhouse_session_complete(session, context, &params, &completion, &error), INHOUSE_STATUS_INVALID_HANDLE,
              &error, "complete under a freed token");
    params.cancel = NULL;

    params.temperature = -1.0f;
    must_fail(inhouse_session_complete(session, context, &params, &completion, &error), INHOUSE_STATUS_INVALID_ARGUMENT,
              &error, "complete at a negative temperature");
}

static void misuse(inhouse_engine *engine)
{
    inhouse_engine_params params;
    inhouse_engine *none = NULL;
    inhouse_session *session = NULL;
    inhouse_error *error = NULL;
    unsigned char room[2 * sizeof(inhouse_engine *)];
    size_t off = (size_t)((uintptr_t)room % sizeof(void *) == 0);

    must_fail(inhouse_engine_open(NULL, &none, &error), INHOUSE_STATUS_INVALID_ARGUMENT, &error, "open NULL");
    CHECK(inhouse_engine_open(NULL, NULL, NULL) == INHOUSE_STATUS_INVALID_ARGUMENT);

    memset(&params, 0, sizeof params);
    must_fail(inhouse_engine_open(&params, &none, &error), INHOUSE_STATUS_INVALID_ARGUMENT, &error, "open, no size");
    CHECK(inhouse_engine_params_init(&params, sizeof params - 1) == INHOUSE_STATUS_INVALID_ARGUMENT);
    CHECK(inhouse_engine_params_init(NULL, sizeof params) == INHOUSE_STATUS_INVALID_ARGUMENT);
    CHECK(inhouse_engine_params_init(&params, sizeof params) == INHOUSE_STATUS_OK);
    must_fail(inhouse_engine_open(&params, &none, &error), INHOUSE_STATUS_INVALID_ARGUMENT, &error, "open nothing");
    params.index = inhouse_str_of("/no/such/index");
    must_fail(inhouse_engine_open(&params, &none, &error), INHOUSE_STATUS_NOT_FOUND, &error, "open a missing index");
    CHECK(inhouse_engine_open(&params, (inhouse_engine **)(void *)(room + off), NULL)
          == INHOUSE_STATUS_INVALID_ARGUMENT);
    params.index.len = (size_t)-1;
    must_fail(inhouse_engine_open(&params, &none, &error), INHOUSE_STATUS_LIMIT_EXCEEDED, &error, "open a huge path");
    CHECK(none == NULL);

    /* Handles that are NULL, made up, of another type, or stale. */
    CHECK(inhouse_engine_retain(NULL) == INHOUSE_STATUS_INVALID_ARGUMENT);
    CHECK(inhouse_engine_release(NULL) == INHOUSE_STATUS_OK);
    CHECK(inhouse_engine_release((inhouse_engine *)(void *)room) == INHOUSE_STATUS_INVALID_HANDLE);
    CHECK(inhouse_session_close((inhouse_session *)(void *)engine) == INHOUSE_STATUS_INVALID_HANDLE);
    CHECK(inhouse_apis_count(NULL) == 0);
    CHECK(inhouse_completion_text(NULL, 0).data == NULL);
    CHECK(inhouse_error_status(NULL) == INHOUSE_STATUS_OK);
    must_fail(inhouse_session_open((inhouse_engine *)(void *)room, NULL, &session, &error),
              INHOUSE_STATUS_INVALID_HANDLE, &error, "open a session on something else");
    CHECK(session == NULL);
}

int main(int argc, char **argv)
{
    char prefixes[4096];
    inhouse_engine_params params;
    inhouse_engine *engine = NULL;
    inhouse_session *session = NULL;
    inhouse_error *error = NULL;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: complete INDEX [MODEL]\n");
        return 2;
    }
    CHECK(inhouse_abi_version() >= INHOUSE_ABI_VERSION);
    printf("libinhouse %s, ABI %u, backends: %s\n", inhouse_version(), (unsigned)inhouse_abi_version(),
           inhouse_backends());

    must(inhouse_engine_params_init(&params, sizeof params), NULL, "init");
    params.index = inhouse_str_of(argv[1]);
    params.model = inhouse_str_of(argc == 3 ? argv[2] : NULL);
    params.prefix_tokens = 512;
    must(inhouse_engine_open(&params, &engine, &error), &error, "open");
    describe(engine);
    retrieve(engine);
    misuse(engine);

    if (argc == 3) {
        inhouse_session_params session_params;
        must(inhouse_session_params_init(&session_params, sizeof session_params), NULL, "init");
        session_params.n_sequences = 2;
        must(inhouse_session_open(engine, &session_params, &session, &error), &error, "open a session");
        choose(engine, session);
        constrain(engine, session);
        CHECK(snprintf(prefixes, sizeof prefixes, "%s.prefixes", argv[1]) < (int)sizeof prefixes);
        keep(engine, prefixes);
        /* The session keeps the engine open. */
        must(inhouse_engine_release(engine), NULL, "release");
        CHECK(inhouse_engine_release(engine) == INHOUSE_STATUS_INVALID_HANDLE);
        complete(session);
        must(inhouse_session_close(session), NULL, "close");
        CHECK(inhouse_session_close(session) == INHOUSE_STATUS_INVALID_HANDLE);
    } else {
        must_fail(inhouse_session_open(engine, NULL, &session, &error), INHOUSE_STATUS_INVALID_ARGUMENT, &error,
                  "open a session without a model");
        choose(engine, NULL);
        must(inhouse_engine_retain(engine), NULL, "retain");
        must(inhouse_engine_release(engine), NULL, "release");
        describe(engine);
        must(inhouse_engine_release(engine), NULL, "release");
    }
    printf("ok\n");
    return 0;
}
