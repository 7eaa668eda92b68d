/*
 * Eight threads on one engine: sessions opened, cancelled and closed at random, each also by the other threads.
 *
 *     threads INDEX MODEL [SECONDS] [SEED]
 *
 * Every call must be answered with a status that the header allows there. Ends with "ok" and what was seen.
 */
#define _POSIX_C_SOURCE 200809L
#include <inhouse.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { N_THREADS = 8, N_STATUSES = 128 };

/* What a thread works on, and what the others reach for. */
struct slot {
    pthread_mutex_t lock;
    inhouse_session *session;
    inhouse_cancel *cancel;
};

struct worker {
    pthread_t thread;
    unsigned long long random;
    unsigned long seen[N_STATUSES];
};

static inhouse_engine *engine;
static const char *index_folder;
static struct slot slots[N_THREADS];
static struct worker workers[N_THREADS];
static time_t end;

static unsigned draw(struct worker *worker, unsigned below)
{
    worker->random ^= worker->random << 13;
    worker->random ^= worker->random >> 7;
    worker->random ^= worker->random << 17;
    return (unsigned)((worker->random >> 33) % below);
}

static time_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

static void expect(struct worker *worker, inhouse_status status, const char *call, int allowed)
{
    if (status >= 0 && status < N_STATUSES)
        worker->seen[status]++;
    if (status != INHOUSE_STATUS_OK && !allowed) {
        fprintf(stderr, "%s: %s\n", call, inhouse_status_name(status));
        exit(1);
    }
}

static int is_ended(inhouse_status status)
{
    return status == INHOUSE_STATUS_CANCELLED || status == INHOUSE_STATUS_DEADLINE_EXCEEDED ||
           status == INHOUSE_STATUS_BUSY || status == INHOUSE_STATUS_INVALID_HANDLE;
}

static int32_t on_event(void *user_data, const inhouse_event *event)
{
    struct worker *worker = user_data;
    return event->kind == INHOUSE_EVENT_TEXT && draw(worker, 16) == 0;
}

static void on_log(void *user_data, const inhouse_log_record *record)
{
    (void)user_data;
    if (record->message.data == NULL)
        abort();
}

/* Another thread's session and token, used as a host's other threads might. */
static void disturb(struct worker *worker)
{
    struct slot *other = &slots[draw(worker, N_THREADS)];
    inhouse_session *session;
    inhouse_cancel *cancel;
    inhouse_status status;
    pthread_mutex_lock(&other->lock);
    session = other->session;
    cancel = other->cancel;
    pthread_mutex_unlock(&other->lock);
    switch (draw(worker, 6)) {
    case 0:
        status = inhouse_cancel_set(cancel);
        expect(worker, status, "cancel", cancel == NULL || status == INHOUSE_STATUS_INVALID_HANDLE);
        break;
    case 1:
        status = inhouse_session_close(session);
        expect(worker, status, "close another's", status == INHOUSE_STATUS_INVALID_HANDLE);
        break;
    case 2: {
        inhouse_complete_params params;
        inhouse_complete_params_init(&params, sizeof params);
        params.max_tokens = 1;
        status = inhouse_session_complete(session, inhouse_str_of("x = "), &params, NULL, NULL);
        expect(worker, status, "complete on another's", session == NULL || is_ended(status));
        break;
    }
    case 3: {
        inhouse_text *info = NULL;
        status = inhouse_session_info(session, &info, NULL);
        expect(worker, status, "info of another's", session == NULL || is_ended(status));
        (void)inhouse_text_free(info);
        break;
    }
    case 4:
        expect(worker, inhouse_log_set((int32_t)draw(worker, 3), on_log, NULL, NULL), "log", 0);
        break;
    default:
        expect(worker, inhouse_cancel_free(NULL), "free nothing", 0);
    }
}

static void round_of(struct worker *worker, struct slot *own)
{
    inhouse_session *session = NULL;
    inhouse_cancel *cancel = NULL;
    inhouse_apis *apis = NULL;
    inhouse_error *error = NULL;
    inhouse_status status;
    unsigned calls = 1 + draw(worker, 4);

    expect(worker, inhouse_engine_retain(engine), "retain", 0);
    expect(worker, inhouse_session_open(engine, NULL, &session, NULL), "open", 0);
    expect(worker, inhouse_cancel_new(&cancel, NULL), "cancel_new", 0);
    pthread_mutex_lock(&own->lock);
    own->session = session;
    own->cancel = cancel;
    pthread_mutex_unlock(&own->lock);
    while (calls-- > 0) {
        inhouse_complete_params params;
        inhouse_completion *completion = NULL;
        inhouse_complete_params_init(&params, sizeof params);
        params.cancel = cancel;
        params.max_tokens = 1 + draw(worker, 16);
        params.seed = draw(worker, 1000);
        params.timeout_ms = draw(worker, 4) == 0 ? 1 + draw(worker, 50) : 0;
        params.api_choice = draw(worker, 2) ? INHOUSE_APIS_TOP : INHOUSE_APIS_NONE;
        params.constrain = draw(worker, 4) == 0;
        params.n_apis = 1 + draw(worker, 3);
        params.on_event = on_event;
        params.user_data = worker;
        status = inhouse_session_complete(session, inhouse_str_of("# open the ledger of May\nledger ="), &params,
                                          &completion, &error);
        expect(worker, status, "complete", is_ended(status));
        (void)inhouse_error_message(error);
        inhouse_error_free(error);
        error = NULL;
        (void)inhouse_completion_text(completion, 0);
        inhouse_completion_free(completion);
        expect(worker, inhouse_engine_propose(engine, inhouse_str_of("# open the ledger"), inhouse_str_of(NULL), 2, &apis, NULL),
               "propose", 0);
        (void)inhouse_apis_label(apis, 0);
        if (draw(worker, 8) == 0) {
            inhouse_engine *fresh = NULL;
            inhouse_apis *all = NULL;
            expect(worker, inhouse_engine_with_index(engine, inhouse_str_of(index_folder), &fresh, NULL), "with_index", 0);
            expect(worker, inhouse_apis_join(apis, apis, &all, NULL), "join", 0);
            expect(worker, inhouse_apis_free(all), "free apis", 0);
            expect(worker, inhouse_engine_release(fresh), "release", 0);
        }
        expect(worker, inhouse_apis_free(apis), "free apis", 0);
        disturb(worker);
        if (draw(worker, 2))
            expect(worker, inhouse_cancel_reset(cancel), "reset", 0);
    }
    pthread_mutex_lock(&own->lock);
    own->session = NULL;
    own->cancel = NULL;
    pthread_mutex_unlock(&own->lock);
    status = inhouse_session_close(session);
    expect(worker, status, "close", status == INHOUSE_STATUS_INVALID_HANDLE);
    expect(worker, inhouse_cancel_free(cancel), "free cancel", 0);
    expect(worker, inhouse_engine_release(engine), "release", 0);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    do {
        round_of(worker, &slots[worker - workers]);
    } while (now() < end);
    return NULL;
}

int main(int argc, char **argv)
{
    inhouse_engine_params params;
    inhouse_error *error = NULL;
    unsigned long seen[N_STATUSES] = {0};
    unsigned long long seed;
    int i, status;

    if (argc < 3) {
        fprintf(stderr, "usage: threads INDEX MODEL [SECONDS] [SEED]\n");
        return 2;
    }
    end = now() + (argc > 3 ? atoi(argv[3]) : 3);
    seed = argc > 4 ? strtoull(argv[4], NULL, 10) : 1;
    inhouse_engine_params_init(&params, sizeof params);
    index_folder = argv[1];
    params.index = inhouse_str_of(argv[1]);
    params.prefix_tokens = 64;
    params.model = inhouse_str_of(argv[2]);
    params.threads = 1;
    params.context_length = 256;
    if (inhouse_engine_open(&params, &engine, &error) != INHOUSE_STATUS_OK) {
        fprintf(stderr, "%s\n", inhouse_error_message(error).data);
        return 1;
    }
    for (i = 0; i < N_THREADS; i++) {
        workers[i].random = 0x9e3779b97f4a7c15ULL * (seed + (unsigned)i + 1);
        pthread_mutex_init(&slots[i].lock, NULL);
    }
    for (i = 0; i < N_THREADS; i++) {
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
            return 1;
    }
    for (i = 0; i < N_THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        for (status = 0; status < N_STATUSES; status++)
            seen[status] += workers[i].seen[status];
    }
    if (inhouse_log_set(INHOUSE_LOG_OFF, NULL, NULL, NULL) != INHOUSE_STATUS_OK ||
        inhouse_engine_release(engine) != INHOUSE_STATUS_OK ||
        inhouse_engine_release(engine) != INHOUSE_STATUS_INVALID_HANDLE)
        return 1;
    for (status = 0; status < N_STATUSES; status++) {
        if (seen[status] > 0)
            printf("%s: %lu\n", inhouse_status_name(status), seen[status]);
    }
    printf("ok\n");
    return 0;
}
