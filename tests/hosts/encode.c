/*
 * A C host of libinhouse with a text encoder: vectors of texts, and an index that is built, searched and updated with it.
 *
 *     encode ENCODER SCRATCH BACKEND
 *
 * ENCODER is an encoder's folder or GGUF file, which is moved into SCRATCH, an empty folder; BACKEND runs it, and where the
 * library lacks that it must be refused. Ends with "ok" and 0 where everything was as the header says, else with the failing
 * line and 1.
 */
#include "host.h"

static float dot(const float *a, const float *b, size_t n)
{
    float sum = 0;
    size_t i;
    for (i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* What holds without any encoder. */
static void misuse(inhouse_cancel *cancel)
{
    inhouse_encoder *encoder = NULL;
    inhouse_vectors *vectors = NULL;
    inhouse_text *text = NULL;
    inhouse_error *error = NULL;

    must_fail(inhouse_encoder_open(inhouse_str_of("/no/such/encoder"), &encoder, &error), INHOUSE_STATUS_NOT_FOUND, &error,
              "open what is not there");
    must_fail(inhouse_encoder_open(inhouse_str_of(NULL), &encoder, &error), INHOUSE_STATUS_INVALID_ARGUMENT, &error,
              "open nothing");
    must_fail(inhouse_encoder_open(inhouse_str_of("/dev/zero"), &encoder, &error), INHOUSE_STATUS_INVALID_DATA, &error,
              "open a device");
    CHECK(encoder == NULL);
    must_fail(inhouse_encoder_info(NULL, &text, &error), INHOUSE_STATUS_INVALID_ARGUMENT, &error, "info of NULL");
    must_fail(inhouse_encoder_info((inhouse_encoder *)cancel, &text, &error), INHOUSE_STATUS_INVALID_HANDLE, &error,
              "info of a token");
    must_fail(inhouse_encoder_encode(NULL, INHOUSE_ROLE_QUERY, NULL, 0, NULL, &vectors, &error),
              INHOUSE_STATUS_INVALID_ARGUMENT, &error, "encode with NULL");
    CHECK(inhouse_encoder_free(NULL) == INHOUSE_STATUS_OK && inhouse_vectors_free(NULL) == INHOUSE_STATUS_OK);
    CHECK(inhouse_vectors_count(NULL) == 0 && inhouse_vectors_dim(NULL) == 0 && inhouse_vectors_row(NULL, 0) == NULL);
}

static void encode(inhouse_str path, inhouse_cancel *cancel)
{
    inhouse_encoder *encoder = NULL;
    inhouse_vectors *vectors = NULL, *again = NULL, *none = NULL;
    inhouse_text *text = NULL;
    inhouse_error *error = NULL;
    inhouse_str texts[4];
    size_t dim, i;
    float length;

    must(inhouse_encoder_open(path, &encoder, &error), &error, "open");
    must(inhouse_encoder_info(encoder, &text, &error), &error, "info");
    CHECK(says(text, "\"normalized\":true"));

    texts[0] = inhouse_str_of("open the ledger of May");
    texts[1] = inhouse_str_of("");
    texts[2] = inhouse_str_of("a far longer text, so that the two are not read side by side as they stand");
    texts[3] = texts[0];
    must(inhouse_encoder_encode(encoder, INHOUSE_ROLE_QUERY, texts, 4, cancel, &vectors, &error), &error, "encode");
    dim = inhouse_vectors_dim(vectors);
    CHECK(inhouse_vectors_count(vectors) == 4 && dim > 0);
    CHECK(inhouse_vectors_row(vectors, 4) == NULL && inhouse_vectors_row(vectors, (size_t)-1) == NULL);
    for (i = 0; i < 4; i++) {
        CHECK(inhouse_vectors_row(vectors, i) == inhouse_vectors_row(vectors, 0) + i * dim);
        length = dot(inhouse_vectors_row(vectors, i), inhouse_vectors_row(vectors, i), dim);
        CHECK(length > 0.999f && length < 1.001f);
    }
    CHECK(dot(inhouse_vectors_row(vectors, 0), inhouse_vectors_row(vectors, 3), dim) > 0.999f);
    CHECK(dot(inhouse_vectors_row(vectors, 0), inhouse_vectors_row(vectors, 2), dim) < 0.999f);
    must(inhouse_encoder_encode(encoder, INHOUSE_ROLE_DOCUMENT, texts, 1, NULL, &again, &error), &error, "encode one");
    CHECK(inhouse_vectors_count(again) == 1 && inhouse_vectors_dim(again) == dim);
    CHECK(inhouse_vectors_free(again) == INHOUSE_STATUS_OK);
    CHECK(inhouse_vectors_free(again) == INHOUSE_STATUS_INVALID_HANDLE);
    must(inhouse_encoder_encode(encoder, INHOUSE_ROLE_QUERY, NULL, 0, NULL, &again, &error), &error, "encode no text");
    CHECK(inhouse_vectors_count(again) == 0 && inhouse_vectors_row(again, 0) == NULL);
    CHECK(inhouse_vectors_free(again) == INHOUSE_STATUS_OK);

    must_fail(inhouse_encoder_encode(encoder, 0, texts, 1, NULL, &none, &error), INHOUSE_STATUS_INVALID_ARGUMENT, &error,
              "encode in no role");
    must_fail(inhouse_encoder_encode(encoder, INHOUSE_ROLE_QUERY, NULL, 1, NULL, &none, &error),
              INHOUSE_STATUS_INVALID_ARGUMENT, &error, "encode NULL");
    must_fail(inhouse_encoder_encode(encoder, INHOUSE_ROLE_QUERY, texts, (size_t)INHOUSE_MAX_TEXTS + 1, NULL, &none, &error),
              INHOUSE_STATUS_LIMIT_EXCEEDED, &error, "encode too many");
    texts[1] = inhouse_str_of("\xff");
    must_fail(inhouse_encoder_encode(encoder, INHOUSE_ROLE_QUERY, texts, 2, NULL, &none, &error),
              INHOUSE_STATUS_INVALID_ARGUMENT, &error, "encode what is not UTF-8");
    CHECK(inhouse_cancel_set(cancel) == INHOUSE_STATUS_OK);
    must_fail(inhouse_encoder_encode(encoder, INHOUSE_ROLE_QUERY, texts, 1, cancel, &none, &error), INHOUSE_STATUS_CANCELLED,
              &error, "encode, cancelled");
    CHECK(none == NULL);

    /* The vectors outlive their encoder. */
    CHECK(inhouse_encoder_free(encoder) == INHOUSE_STATUS_OK);
    CHECK(inhouse_encoder_free(encoder) == INHOUSE_STATUS_INVALID_HANDLE);
    CHECK(inhouse_vectors_row(vectors, 3)[dim - 1] == inhouse_vectors_row(vectors, 3)[dim - 1]);
    CHECK(inhouse_vectors_free(vectors) == INHOUSE_STATUS_OK);
}

static void write_row(const char *path, const char *name)
{
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    fprintf(file, "{\"name\": \"%s\", \"qualified_name\": \"yarns.%s\", \"description\": \"Joins two threads.\"}\n", name, name);
    CHECK(fclose(file) == 0);
}

/* APIs that a query finds with which it shares no word: all of the index by their vectors, none by words alone. */
static size_t found(inhouse_str index, const char *encoder)
{
    inhouse_engine_params params;
    inhouse_engine *engine = NULL;
    inhouse_apis *apis = NULL;
    inhouse_error *error = NULL;
    size_t n;

    must(inhouse_engine_params_init(&params, sizeof params), NULL, "init");
    CHECK(params.encoder.data == NULL);
    params.index = index;
    params.encoder = inhouse_str_of(encoder);
    must(inhouse_engine_open(&params, &engine, &error), &error, "open");
    must(inhouse_engine_retrieve(engine, inhouse_str_of("unravel"), 5, &apis, &error), &error, "retrieve");
    n = inhouse_apis_count(apis);
    CHECK(inhouse_apis_free(apis) == INHOUSE_STATUS_OK && inhouse_engine_release(engine) == INHOUSE_STATUS_OK);
    return n;
}

static void index_with(const char *encoder, const char *scratch)
{
    inhouse_index_params params;
    inhouse_engine_params engine_params;
    inhouse_engine *engine = NULL;
    inhouse_text *text = NULL;
    inhouse_error *error = NULL;
    inhouse_str sources[1], index;
    char rooms[3][4096];

    CHECK(snprintf(rooms[0], sizeof rooms[0], "%s/rows.jsonl", scratch) < (int)sizeof rooms[0]);
    CHECK(snprintf(rooms[1], sizeof rooms[1], "%s/index", scratch) < (int)sizeof rooms[1]);
    CHECK(snprintf(rooms[2], sizeof rooms[2], "%s/moved", scratch) < (int)sizeof rooms[2]);
    index = inhouse_str_of(rooms[1]);
    write_row(rooms[0], "knit");
    sources[0] = inhouse_str_of(rooms[0]);
    must(inhouse_index_params_init(&params, sizeof params), NULL, "init");
    CHECK(params.encoder.data == NULL);
    params.sources = sources;
    params.n_sources = 1;
    params.encoder = inhouse_str_of("/no/such/encoder");
    must_fail(inhouse_index_build(index, &params, &text, &error), INHOUSE_STATUS_NOT_FOUND, &error, "build with no encoder");
    params.encoder = inhouse_str_of(encoder);
    must(inhouse_index_build(index, &params, &text, &error), &error, "build");
    CHECK(says(text, "\"encoder\":{"));
    CHECK(found(index, NULL) == 1 && found(index, "none") == 0 && found(index, encoder) == 1);

    /* Where the index names it, until it is moved; then where it is said to be. */
    write_row(rooms[0], "purl");
    params.encoder = inhouse_str_of(NULL);
    must(inhouse_index_update(index, &params, &text, &error), &error, "update");
    CHECK(says(text, "\"added\":1"));
    CHECK(rename(encoder, rooms[2]) == 0);
    write_row(rooms[0], "frog");
    must_fail(inhouse_index_update(index, &params, &text, &error), INHOUSE_STATUS_NOT_FOUND, &error, "update, moved");
    CHECK(found(index, NULL) == 0);
    params.encoder = inhouse_str_of(rooms[2]);
    must(inhouse_index_update(index, &params, &text, &error), &error, "update");
    CHECK(says(text, "\"added\":1"));
    CHECK(found(index, rooms[2]) == 3);

    must(inhouse_engine_params_init(&engine_params, sizeof engine_params), NULL, "init");
    engine_params.index = index;
    engine_params.encoder = inhouse_str_of(encoder);
    must_fail(inhouse_engine_open(&engine_params, &engine, &error), INHOUSE_STATUS_NOT_FOUND, &error, "open, moved");
    engine_params.encoder = inhouse_str_of("/dev/zero");
    must_fail(inhouse_engine_open(&engine_params, &engine, &error), INHOUSE_STATUS_INVALID_DATA, &error, "open with a device");
}

int main(int argc, char **argv)
{
    inhouse_encoder *encoder = NULL;
    inhouse_cancel *cancel = NULL;
    inhouse_error *error = NULL;

    if (argc != 4) {
        fprintf(stderr, "usage: encode ENCODER SCRATCH BACKEND\n");
        return 2;
    }
    must(inhouse_cancel_new(&cancel, &error), &error, "cancel");
    misuse(cancel);
    if (strstr(inhouse_backends(), argv[3]) == NULL) {
        must_fail(inhouse_encoder_open(inhouse_str_of(argv[1]), &encoder, &error), INHOUSE_STATUS_UNSUPPORTED, &error,
                  "open without its backend");
    } else {
        encode(inhouse_str_of(argv[1]), cancel);
        index_with(argv[1], argv[2]);
    }
    CHECK(inhouse_cancel_free(cancel) == INHOUSE_STATUS_OK);
    printf("ok\n");
    return 0;
}
