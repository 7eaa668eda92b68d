/*
 * A C host that fills in the middle: the code before and after the cursor in, what stands between out.
 *
 *     fill_in MODEL
 *
 * MODEL was trained to fill in. Ends with "ok" and 0 where everything was as the header says, else with the failing line and 1.
 */
#include "host.h"

int main(int argc, char **argv)
{
    inhouse_engine_params params;
    inhouse_complete_params complete;
    inhouse_engine *engine = NULL;
    inhouse_session *session = NULL;
    inhouse_completion *completion = NULL;
    inhouse_text *text = NULL;
    inhouse_error *error = NULL;
    inhouse_str prompt;
    size_t n_tokens;

    if (argc != 2) {
        fprintf(stderr, "usage: fill_in MODEL\n");
        return 2;
    }
    must(inhouse_engine_params_init(&params, sizeof params), NULL, "init");
    params.model = inhouse_str_of(argv[1]);
    must(inhouse_engine_open(&params, &engine, &error), &error, "open");
    must(inhouse_engine_info(engine, &text, &error), &error, "info");
    CHECK(says(text, "\"can_infill\":true"));
    must(inhouse_session_open(engine, NULL, &session, &error), &error, "open a session");
    must(inhouse_complete_params_init(&complete, sizeof complete), NULL, "init");
    complete.max_tokens = 6;
    complete.suffix = inhouse_str_of("\nreturn y");
    must(inhouse_session_complete(session, inhouse_str_of("y = "), &complete, &completion, &error), &error, "fill in");
    prompt = inhouse_completion_prompt(completion);
    printf("  %s\n", prompt.data);
    CHECK(strstr(prompt.data, "y = ") != NULL && strstr(prompt.data, "\nreturn y") != NULL);
    n_tokens = inhouse_completion_prompt_tokens(completion);
    must(inhouse_completion_json(completion, &text, &error), &error, "json of a completion");
    CHECK(says(text, "\"format\":\"infill\""));
    CHECK(inhouse_completion_free(completion) == INHOUSE_STATUS_OK);
    /* A suffix that is set and empty is no unset one: the model reads that nothing follows. */
    complete.suffix = inhouse_str_of("");
    must(inhouse_session_complete(session, inhouse_str_of("y = "), &complete, &completion, &error), &error, "fill in");
    CHECK(inhouse_completion_prompt_tokens(completion) < n_tokens);
    CHECK(inhouse_completion_free(completion) == INHOUSE_STATUS_OK);
    complete.suffix = inhouse_str_of("\xff");
    must_fail(inhouse_session_complete(session, inhouse_str_of("y = "), &complete, &completion, &error),
              INHOUSE_STATUS_INVALID_ARGUMENT, &error, "fill in before what is not UTF-8");
    CHECK(inhouse_session_close(session) == INHOUSE_STATUS_OK && inhouse_engine_release(engine) == INHOUSE_STATUS_OK);
    printf("ok\n");
    return 0;
}
