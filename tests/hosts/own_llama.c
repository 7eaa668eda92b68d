/*
 * A host's own llama.cpp: functions of the names that libinhouse has inside, which do something else. Linked into
 * own_llama_host.c beside libinhouse. A call that should have stayed within libinhouse would end up here and show.
 */
int own_llama_calls = 0;

#define OWN(name) \
    int name(void) \
    { \
        return ++own_llama_calls; \
    }

int ggml_init(void);
int ggml_free(void);
int ggml_backend_init_by_type(void);
int ggml_backend_load_all(void);
int ggml_graph_compute(void);
int ggml_time_us(void);
int gguf_init_from_file(void);
int llama_backend_init(void);
int llama_decode(void);
int llama_encode(void);
int llama_init_from_model(void);
int llama_log_set(void);
int llama_model_default_params(void);
int llama_model_free(void);
int llama_model_load_from_file(void);
int llama_tokenize(void);

OWN(ggml_init)
OWN(ggml_free)
OWN(ggml_backend_init_by_type)
OWN(ggml_backend_load_all)
OWN(ggml_graph_compute)
OWN(ggml_time_us)
OWN(gguf_init_from_file)
OWN(llama_backend_init)
OWN(llama_decode)
OWN(llama_encode)
OWN(llama_init_from_model)
OWN(llama_log_set)
OWN(llama_model_default_params)
OWN(llama_model_free)
OWN(llama_model_load_from_file)
OWN(llama_tokenize)
