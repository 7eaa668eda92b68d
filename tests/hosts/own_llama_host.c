/*
 * A host that has a llama.cpp of its own and uses both: its own functions are its own, and libinhouse's stay inside.
 *
 *     own_llama_host INDEX MODEL
 */
#include <inhouse.h>

#include <stdio.h>

extern int own_llama_calls;
int ggml_init(void);
int llama_decode(void);
int llama_model_load_from_file(void);

int main(int argc, char **argv)
{
    inhouse_engine_params params;
    inhouse_complete_params how;
    inhouse_engine *engine = NULL;
    inhouse_session *session = NULL;
    inhouse_completion *completion = NULL;
    inhouse_error *error = NULL;
    int own;

    if (argc != 3)
        return 2;
    own = ggml_init() + llama_decode() + llama_model_load_from_file();
    if (own != 1 + 2 + 3)
        return 3;
    inhouse_engine_params_init(&params, sizeof params);
    params.index = inhouse_str_of(argv[1]);
    params.model = inhouse_str_of(argv[2]);
    inhouse_complete_params_init(&how, sizeof how);
    how.api_choice = INHOUSE_APIS_TOP;
    how.n_apis = 1;
    how.max_tokens = 8;
    how.stop_choice = INHOUSE_STOPS_NONE;
    if (inhouse_engine_open(&params, &engine, &error) != INHOUSE_STATUS_OK ||
        inhouse_session_open(engine, NULL, &session, &error) != INHOUSE_STATUS_OK ||
        inhouse_session_complete(session, inhouse_str_of("# open the ledger\nx ="), &how, &completion, &error) !=
            INHOUSE_STATUS_OK) {
        fprintf(stderr, "%s\n", inhouse_error_message(error).data);
        return 1;
    }
    printf("completion: %s\n", inhouse_completion_text(completion, 0).data);
    printf("own calls: %d\n", own_llama_calls);
    inhouse_completion_free(completion);
    inhouse_session_close(session);
    inhouse_engine_release(engine);
    return own_llama_calls == 3 ? 0 : 4;
}
