/*
 * Completes a file on the console: shows the APIs that fit, lets you choose, and writes what the model makes of it.
 *
 *     cc -std=c99 console.c -o console $(pkg-config --cflags --libs inhouse)
 *     ./console mylib.index model.gguf draft.py
 *
 * The file is the code before the cursor. Ctrl-C ends the completion with what is there by then.
 */
#include <inhouse.h>

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OFFERED = 5 };

/* What Ctrl-C sets; the callback looks at it, since a signal handler may not call the library. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

/* Ends the program with the library's own words where a call has failed. */
static void must(inhouse_status status, inhouse_error **error)
{
    if (status != INHOUSE_STATUS_OK) {
        inhouse_str message = inhouse_error_message(*error);
        fprintf(stderr, "console: %s\n", message.data ? message.data : inhouse_status_name(status));
        inhouse_error_free(*error);
        exit(1);
    }
}

static char *read_file(const char *path, size_t *len)
{
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    size_t room = 0, got;
    *len = 0;
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    do {
        if (room - *len < 4096) {
            char *grown = realloc(text, room += 65536);
            if (grown == NULL)
                exit(1);
            text = grown;
        }
        got = fread(text + *len, 1, room - *len, file);
        *len += got;
    } while (got > 0);
    fclose(file);
    return text;
}

/* Numbers in a line as indices from 0; -1 where the line has other words. */
static int numbers(const char *line, size_t *indices, size_t most)
{
    size_t n = 0;
    while (*line != '\0') {
        if (isalpha((unsigned char)*line))
            return -1;
        if (isdigit((unsigned char)*line)) {
            unsigned long number = strtoul(line, (char **)&line, 10);
            if (number >= 1 && number <= most && n < OFFERED)
                indices[n++] = number - 1;
        } else {
            line++;
        }
    }
    return (int)n;
}

/* Figure 4 of the paper: what fits is offered, a person chooses among it or asks in words of their own. */
static inhouse_apis *choose(inhouse_engine *engine, inhouse_str code)
{
    inhouse_apis *offered, *chosen;
    inhouse_error *error = NULL;
    char line[1024] = "";
    size_t indices[OFFERED], i, count;
    int n;
    do {
        inhouse_str query = inhouse_str_of(line[0] != '\0' ? line : NULL);
        must(inhouse_engine_propose(engine, code, query, OFFERED, &offered, &error), &error);
        count = inhouse_apis_count(offered);
        for (i = 0; i < count; i++)
            fprintf(stderr, "%2zu  %s\n", i + 1, inhouse_apis_label(offered, i).data);
        fprintf(stderr, "Which? Numbers; Enter: none of the above; or other words to look for: ");
        if (fgets(line, sizeof line, stdin) == NULL)
            line[0] = '\0';
        line[strcspn(line, "\n")] = '\0';
        n = numbers(line, indices, count);
        chosen = NULL;
        if (n >= 0)
            must(inhouse_apis_select(offered, indices, (size_t)n, &chosen, &error), &error);
        inhouse_apis_free(offered);
    } while (chosen == NULL);
    return chosen;
}

static int32_t on_event(void *user_data, const inhouse_event *event)
{
    (void)user_data;
    if (event->kind == INHOUSE_EVENT_TEXT) {
        fwrite(event->text.data, 1, event->text.len, stdout);
        fflush(stdout);
    }
    return interrupted;
}

int main(int argc, char **argv)
{
    inhouse_engine_params engine_params;
    inhouse_complete_params params;
    inhouse_engine *engine;
    inhouse_session *session;
    inhouse_completion *completion;
    inhouse_apis *chosen;
    inhouse_error *error = NULL;
    inhouse_str code;
    char *text;

    if (argc != 4) {
        fprintf(stderr, "usage: console INDEX MODEL FILE\n");
        return 2;
    }
    text = read_file(argv[3], &code.len);
    code.data = text;

    inhouse_engine_params_init(&engine_params, sizeof engine_params);
    engine_params.index = inhouse_str_of(argv[1]);
    engine_params.model = inhouse_str_of(argv[2]);
    must(inhouse_engine_open(&engine_params, &engine, &error), &error);
    must(inhouse_session_open(engine, NULL, &session, &error), &error);
    chosen = choose(engine, code);

    inhouse_complete_params_init(&params, sizeof params);
    params.api_choice = INHOUSE_APIS_GIVEN;
    params.apis = chosen;
    params.temperature = 0;
    params.constrain = 1;
    params.on_event = on_event;
    signal(SIGINT, on_interrupt);
    must(inhouse_session_complete(session, code, &params, &completion, &error), &error);
    printf("\n");
    fprintf(stderr, "%zu tokens in %.2f s\n", inhouse_completion_tokens(completion, 0),
            inhouse_completion_decode_seconds(completion));

    inhouse_completion_free(completion);
    inhouse_apis_free(chosen);
    inhouse_session_close(session);
    inhouse_engine_release(engine);
    free(text);
    return 0;
}
