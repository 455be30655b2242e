import pytest
@pytest.mark.filterwarnings("ignore:Item 'summary' on TypedDict:UserWarning")
def test_x(settings):
    from llm_wrapper.transport.library import litellm
    m = litellm()
    for kw in ({}, {"stream": True}):
        r = m.completion(model="demo/steady", messages=[{"role": "user", "content": "hi"}], **kw)
        print(list(r) if kw else r)
