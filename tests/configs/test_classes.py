"""What each class asks for, and what it hands to the transport."""

import copy
import json
import pickle
from decimal import Decimal
from random import Random

import pytest

from llm_wrapper.configs import LLMConfig, OllamaConfig, get_configs
from llm_wrapper.configs.build import build
from llm_wrapper.configs.classes import BUILTIN
from llm_wrapper.errors import LLMConfigsNotAvailable
from llm_wrapper.types import Price

from .conftest import CANARY


def load(text: str, name: str = "x") -> LLMConfig:
    result = build(f"{name}.yml", text.encode())
    assert isinstance(result, LLMConfig), [str(problem) for problem in result]
    return result


def problems(text: str, name: str = "x") -> list[str]:
    result = build(f"{name}.yml", text.encode())
    assert isinstance(result, list)
    return [str(problem) for problem in result]


KEY = f"api_key: {CANARY}\n"


@pytest.mark.parametrize(
    ("text", "model", "credentials"),
    [
        (
            "llm_config_class: AzureOpenAILLMConfig\nendpoint: https://e.com/\ndeployment_name: d\n"
            "api_version: 2024-01-01\n" + KEY,
            "azure/d",
            {"api_base": "https://e.com", "api_key": CANARY, "api_version": "2024-01-01"},
        ),
        ("llm_config_class: GeminiConfig\nmodel_name: m\n" + KEY, "gemini/m", {"api_key": CANARY}),
        ("llm_config_class: AnthropicConfig\nmodel_name: m\n" + KEY, "anthropic/m", {"api_key": CANARY}),
        (
            "llm_config_class: GroqConfig\nmodel_name: openai/gpt-oss\nendpoint: http://e.com/v1\n" + KEY,
            "groq/openai/gpt-oss",
            {"api_key": CANARY, "api_base": "http://e.com/v1"},
        ),
        (
            "llm_config_class: OpenAIConfig\nmodel_name: m\norganization: o\nextra_headers: {X-A: 1}\n" + KEY,
            "openai/m",
            {"api_key": CANARY, "organization": "o", "extra_headers": {"X-A": "1"}},
        ),
        (
            "llm_config_class: OllamaConfig\nmodel_name: qwen3:4b\n",
            "ollama_chat/qwen3:4b",
            {"api_base": "http://localhost:11434"},
        ),
        (
            "llm_config_class: OllamaConfig\nmodel_name: ollama_chat/qwen3:4b\nendpoint: http://gpu:1\n",
            "ollama_chat/qwen3:4b",
            {"api_base": "http://gpu:1"},
        ),
        (
            "llm_config_class: OpenAICompatibleConfig\nmodel_name: org/m\nendpoint: http://gpu:8000/v1\n",
            "hosted_vllm/org/m",
            {"api_base": "http://gpu:8000/v1"},
        ),
        (
            f"llm_config_class: LiteLLMConfig\nmodel: bedrock/m\ncredentials: {{aws_secret_access_key: {CANARY}}}\n",
            "bedrock/m",
            {"aws_secret_access_key": CANARY},
        ),
        ("llm_config_class: DemoConfig\n", "demo/assistant", {}),
    ],
)
def test_each_class_gives_litellms_id_and_arguments(text, model, credentials):
    """A config becomes the litellm model id and connection arguments of its provider, and nothing more."""
    choice = load(text).choice()
    assert choice.model == model
    assert dict(choice.credentials) == credentials


def test_the_documented_azure_example_loads_unchanged():
    """The YAML printed in the reference documentation works as it stands."""
    text = """
    name: "gpt-4-32k-azure"
    llm_config_class: "AzureOpenAILLMConfig"
    endpoint: "https://example.com"
    deployment_name: "gpt-4"
    api_key: "your_api_key"
    api_version: "2024-01-01"
    tools_enabled: true
    """
    choice = load(text, "gpt-4-32k-azure").choice()
    assert (choice.name, choice.model, choice.tools_enabled) == ("gpt-4-32k-azure", "azure/gpt-4", True)


def test_common_keys_reach_the_choice():
    """Every common key ends where the transport looks for it; prices keep the digits that were written."""
    choice = load(
        "name: x\nllm_config_class: DemoConfig\nweight: 2\ntimeout: 12.5\nmax_tokens: 100\ntemperature: 0\n"
        "tools_enabled: false\nstream: false\nparams: {seed: 7, top_p: 0.9}\nprice_model: gpt-4o\n"
        "price: {input: 0.10, output: 1, cached_input: '0.05', cache_write: 0.125, reasoning: 2.0}\n"
    ).choice()
    assert choice.params == {"max_tokens": 100, "temperature": 0, "seed": 7, "top_p": 0.9}
    assert (choice.timeout, choice.tools_enabled, choice.stream) == (12.5, False, False)
    assert choice.price == Price(Decimal("0.10"), Decimal("1"), Decimal("0.05"), Decimal("0.125"), Decimal(2))
    assert str(choice.price.input) == "0.10"
    assert choice.price_model == "gpt-4o"


def test_azures_base_model_names_the_price():
    """A deployment's name says nothing of its price, so base_model does, unless price_model is set."""
    text = (
        "llm_config_class: AzureOpenAILLMConfig\nendpoint: https://e.com\ndeployment_name: d\n"
        "base_model: gpt-4o\napi_version: v\n"
    )
    assert load(text + KEY).choice().price_model == "gpt-4o"
    assert load(text + "price_model: other\n" + KEY).choice().price_model == "other"


def test_the_demo_script_travels_in_the_params():
    """The demo provider reads its script from `demo_script`."""
    config = load(
        "llm_config_class: DemoConfig\nscript:\n  - rate_limit: 20\n  - fail: provider_timeout\n  - text: hello\n"
    )
    script = [{"rate_limit": 20}, {"fail": "provider_timeout"}, {"text": "hello"}]
    assert config.choice().params == {"demo_script": script}


def test_a_choice_cannot_change_its_config():
    """What a call does to its parameters must not reach the next call."""
    config = load("llm_config_class: DemoConfig\nparams: {stop: [a]}\nscript: [{text: b}]\n")
    params = config.choice().params
    params["stop"].append("c")
    params["demo_script"].clear()
    assert config.choice().params == {"stop": ["a"], "demo_script": [{"text": "b"}]}


def test_values_from_the_environment_may_be_numbers(monkeypatch):
    """A reference in place of a number or bool is read as one, quoted or not."""
    monkeypatch.setenv("LLM_TEST_WEIGHT", "3")
    config = load(
        "llm_config_class: DemoConfig\nweight: ${LLM_TEST_WEIGHT}\ntimeout: '${LLM_TEST_WEIGHT}'\n"
        "tools_enabled: ${LLM_TEST_NONE:-false}\n"
    )
    assert (config.weight, config.choice().timeout, config.tools_enabled) == (3, 3, False)


# -- what is refused -------------------------------------------------------------------------------------

AZURE = "llm_config_class: AzureOpenAILLMConfig\n"
DEMO = "llm_config_class: DemoConfig\n"
GROQ = "llm_config_class: GroqConfig\nmodel_name: m\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\n", ["x.yml: llm_config_class is required"]),
        ("llm_config_clas: DemoConfig\n", ["x.yml: llm_config_clas is not a known key; did you mean"]),
        ("llm_config_class: Nope\n", ["x.yml: llm_config_class is not a known class; use one of Anthropic"]),
        ("llm_config_class: [a]\n", ["llm_config_class is not a known class"]),
        ("llm_config_class: nowhere.Config\n", ["llm_config_class names a class that cannot be imported"]),
        ("llm_config_class: os.path.join\n", ["llm_config_class names something that is not a subclass"]),
        ("llm_config_class: ..a.b\n", ["llm_config_class is not a known class"]),
        (
            AZURE,
            [f"x.yml: {key} is required" for key in ("endpoint", "deployment_name", "api_key", "api_version")],
        ),
        (GROQ, ["x.yml: api_key is required"]),
        (GROQ + "api_key:\n", ["x.yml: api_key is required"]),
        (GROQ + "api_key: ''\n", ["x.yml: api_key is empty"]),
        (
            GROQ + "api_key: ${LLM_TEST_MISSING}\n",
            ["api_key the environment variable LLM_TEST_MISSING is not"],
        ),
        (GROQ + f"api_key: [{CANARY}]\n", ["x.yml: api_key must be text"]),
        (GROQ + f"api_key: {{a: {CANARY}}}\n", ["x.yml: api_key must be text"]),
        (GROQ + f'api_key: "{CANARY}\\n"\n', ["api_key must be printable ASCII"]),
        (GROQ + f"api_key: {CANARY}é\n", ["api_key must be printable ASCII"]),
        (
            GROQ + f"apikey: {CANARY}\n",
            ["api_key is required", "apikey is not a known key; did you mean api_key"],
        ),
        (GROQ + KEY + "endpoint: e.com\n", ["endpoint must be an address like"]),
        (GROQ + KEY + f"endpoint: https://u:{CANARY}@e.com\n", ["endpoint must be an address like"]),
        (GROQ + KEY + "endpoint: file:///etc/passwd\n", ["endpoint must be an address like"]),
        (GROQ + KEY + f"params: {{api_key: {CANARY}}}\n", ["params.api_key looks like a secret"]),
        (DEMO + "name: y\n", ["x.yml: name must be the name of the file"]),
        (DEMO + "name: ../../etc/x\n", ["x.yml: name must be 1 to 100 letters"]),
        (DEMO + "weight: -1\n", ["weight must be 0 or more"]),
        (DEMO + "weight: .inf\n", ["weight must be a number"]),
        (DEMO + "weight: .nan\n", ["weight must be a number"]),
        (DEMO + "weight: '2'\n", ["weight must be a number, written without quotes"]),
        (DEMO + "timeout: 0\n", ["timeout must be more than 0"]),
        (DEMO + "max_tokens: 1.5\n", ["max_tokens must be a whole number"]),
        (DEMO + "tools_enabled: yes\n", ["tools_enabled must be true or false"]),
        (DEMO + "price: {input: -1, output: 1}\n", ["price.input must be an amount like"]),
        (DEMO + "price: {input: 1}\n", ["price.output is required"]),
        (DEMO + "price: 1\n", ["price must be a block"]),
        (DEMO + "script: []\n", ["script must have at least 1 entries"]),
        (DEMO + "script: [{}]\n", ["script[0] must hold exactly one of: rate_limit, fail, text"]),
        (DEMO + "script: [{text: a, rate_limit: 1}]\n", ["script[0] must hold exactly one of"]),
        (DEMO + "script: [{fail: 503}]\n", ["script[0].fail must be one of: provider_timeout"]),
        (DEMO + "script: [{rate_limit: soon}]\n", ["script[0].rate_limit must be a number"]),
        (DEMO + "params: [a]\n", ["params must be a block"]),
        (DEMO + "api_key: x\n", ["api_key is not a known key"]),
        (
            "llm_config_class: LiteLLMConfig\nmodel: m\ncredentials: {messages: x}\n",
            ["credentials.messages cannot"],
        ),
        ("llm_config_class: OpenAICompatibleConfig\nmodel_name: m\n", ["endpoint is required"]),
    ],
)
def test_i2_each_mistake_is_named_with_its_key(text, expected, monkeypatch):
    """A mistake gives file, key and reason, all mistakes of a file at once, and no value."""
    monkeypatch.delenv("LLM_TEST_MISSING", raising=False)
    found = problems(text)
    assert len(found) == len(expected)
    for part in expected:
        assert any(part in line for line in found), found
    assert "CANARY" not in "".join(found)


@pytest.mark.parametrize("seed", range(8))
def test_i2_damaged_files_give_problems_and_never_the_key(seed):
    """However a file is garbled, there is a config or a list of problems, and no problem holds the key."""
    rng = Random(seed)
    whole = (GROQ + KEY + f"extra_headers: {{Authorization: Bearer {CANARY}}}\nprice: {{input: 1}}\n").encode()
    for _ in range(40):
        raw = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.randrange(1, 4)):
            raw.insert(rng.randrange(len(raw) + 1), rng.choice(b"\t\n \0:'\"[]{}&*!|>%@`#$-\xff\xc3"))
        result = build("x.yml", bytes(raw))
        assert isinstance(result, LLMConfig) or result
        assert "CANARY" not in repr(result)


@pytest.mark.parametrize("cls", BUILTIN.values(), ids=BUILTIN)
def test_every_builtin_class_has_a_valid_schema(cls):
    """Each schema is valid draft 2020-12, closed, and knows the keys that it requires."""
    from jsonschema import Draft202012Validator

    schema = cls.schema()
    Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) <= set(schema["properties"])
    assert cls.__doc__


# -- secrets ---------------------------------------------------------------------------------------------


def full_of_secrets() -> LLMConfig:
    return load(
        f"llm_config_class: LiteLLMConfig\nmodel: m\napi_key: {CANARY}\nextra_headers: {{X-A: {CANARY}}}\n"
        f"credentials: {{aws_secret_access_key: {CANARY}}}\nendpoint: https://e.com/v1?key={CANARY}\n"
    )


def test_i5_no_view_of_a_config_shows_a_secret():
    """Neither repr, str, vars, public() nor the choice's repr holds a key."""
    config = full_of_secrets()
    choice = config.choice()
    vars_but_endpoint = {key: value for key, value in vars(config).items() if key != "values"}
    views = [repr(config), str(config), f"{config}", repr(vars_but_endpoint), json.dumps(config.public())]
    views += [repr(choice), str(choice.credentials), json.dumps(dict(choice.params))]
    assert "CANARY" not in "".join(views)
    assert choice.credentials["api_key"] == CANARY


def test_i5_a_config_cannot_be_pickled_or_copied():
    """A pickle would carry the key to a cache, a queue or another process."""
    config = full_of_secrets()
    for take in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            take(config)
        with pytest.raises(TypeError, match="not pickled"):
            take(config.choice())


def test_i5_public_says_where_a_key_comes_from(monkeypatch):
    """The admin shows whether a key is set and from where, and nothing of the key."""
    monkeypatch.setenv("LLM_TEST_KEY", CANARY)
    shown = load(GROQ + "api_key: ${LLM_TEST_KEY}\nextra_headers: {A: x}\n").public()
    assert shown["api_key"] == "from environment"
    assert shown["extra_headers"] == "set"
    assert shown["model"] == "groq/m"


def test_i5_keys_with_telling_names_are_secret_in_own_classes():
    """A class of the project's own need not mark a key as secret where its name already says so."""

    class Own(LLMConfig):
        properties = {"model_name": {"type": "string"}, "vault_token": {"type": "string"}}

    config = Own({"name": "x", "model_name": "m", "vault_token": CANARY})
    assert config.public()["vault_token"] == "set"
    assert "CANARY" not in repr(vars(config))


# -- classes of the project's own ------------------------------------------------------------------------


class OwnConfig(OllamaConfig):
    """A class as a project would write it."""

    default_endpoint = "http://gpu:11434"


class BrokenConfig(LLMConfig):
    properties = {"model_name": {"type": "string"}}

    def connection(self):
        raise RuntimeError(CANARY)


class BadSchemaConfig(LLMConfig):
    properties = {"model_name": {"type": "strnig"}}


def test_a_dotted_path_names_a_class_of_the_project():
    """A project's own subclass works without any registration."""
    config = load(f"llm_config_class: {__name__}.OwnConfig\nmodel_name: m\n")
    assert config.choice().credentials["api_base"] == "http://gpu:11434"


def test_a_short_name_comes_from_the_setting(settings, write):
    """LLM_WRAPPER_CONFIG_CLASSES gives short names, and a change of it counts at once."""
    write("x.yml", "llm_config_class: Own\nmodel_name: m\n")
    with pytest.raises(LLMConfigsNotAvailable, match="not a known class"):
        get_configs().get("x")
    settings.LLM_WRAPPER_CONFIG_CLASSES = {"Own": f"{__name__}.OwnConfig"}
    assert isinstance(get_configs().get("x"), OwnConfig)


@pytest.mark.parametrize(("cls", "error"), [("BrokenConfig", "RuntimeError"), ("BadSchemaConfig", "UnknownType")])
def test_i2_a_class_that_fails_harms_only_its_file(cls, error):
    """An error in a project's class becomes a problem of the file, without the error's text."""
    found = problems(f"llm_config_class: {__name__}.{cls}\nmodel_name: m\n")
    assert found == [f"x.yml: llm_config_class names a class that raised {error}"]


def test_the_samples_of_the_docs_work(request, monkeypatch):
    """What docs/configs.md shows can be copied: the class of one's own and the table of classes."""
    page = (request.config.rootpath / "docs" / "configs.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    namespace: dict[str, object] = {"__name__": "shop.llm"}
    exec(compile(code, "docs/configs.md", "exec"), namespace)  # noqa: S102 - our own page
    config = namespace["GatewayConfig"]({"name": "x", "model_name": "m", "team_token": CANARY})
    assert config.choice().model == "hosted_vllm/m"
    assert "CANARY" not in repr(config.public())
    for name, cls in BUILTIN.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        assert all(f"`{key}`" in row for key in cls.properties), row
