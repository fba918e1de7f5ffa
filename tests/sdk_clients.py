"""A program that asks a server through one rerank client, unmodified; run by ``test_serve_sdks.py``.

``sdk_clients.py NAME`` reads ``{"query", "texts", "ways": [{"url", "key", "model", "header"?, "body"?}, ...]}``, and
writes for each way ``[[index, score], ...]`` as the client gives them, or ``{"error": "..."}``.
"""

from __future__ import annotations

import json
import sys


def cohere_v1(way, query, texts):
    import cohere

    return _cohere(cohere.Client, way, query, texts)


def cohere_v2(way, query, texts):
    import cohere

    return _cohere(cohere.ClientV2, way, query, texts)


def _cohere(client, way, query, texts):
    import httpx

    http = httpx.Client(headers={"X-User": way["header"]}) if "header" in way else None
    more = {"request_options": {"additional_body_parameters": {"user": way["body"]}}} if "body" in way else {}
    client = client(way["key"], base_url=way["url"], httpx_client=http)
    found = client.rerank(query=query, documents=texts, model=way["model"], top_n=len(texts), **more)
    return [[one.index, one.relevance_score] for one in found.results]


def langchain(way, query, texts):
    import cohere
    import httpx
    from langchain_cohere import CohereRerank
    from langchain_core.documents import Document

    more = {"base_url": way["url"], "cohere_api_key": way["key"]}
    if "header" in way:
        http = httpx.Client(headers={"X-User": way["header"]})
        more = {"client": cohere.ClientV2(way["key"], base_url=way["url"], httpx_client=http)}
    ranker = CohereRerank(model=way["model"], top_n=len(texts), **more)
    found = ranker.rerank(texts, query, top_n=None)
    kept = ranker.compress_documents([Document(page_content=text) for text in texts], query)
    assert [one.page_content for one in kept] == [texts[one["index"]] for one in found]
    return [[one["index"], one["relevance_score"]] for one in found]


def _nodes(ranker, query, texts):
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(at)), score=0.5) for at, text in enumerate(texts)]
    found = ranker.postprocess_nodes(nodes, query_str=query)
    return [[int(one.node.node_id), one.score] for one in found]


def llama_cohere(way, query, texts):
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    ranker = CohereRerank(top_n=len(texts), model=way["model"], api_key=way["key"], base_url=way["url"], max_retries=1)
    return _nodes(ranker, query, texts)


def llama_tei(way, query, texts):
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    ranker = TextEmbeddingInference(top_n=len(texts), base_url=way["url"], auth_token=f"Bearer {way['key']}")
    return _nodes(ranker, query, texts)


def haystack(way, query, texts):
    from haystack import Document
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker

    key = Secret.from_token(way["key"])
    ranker = CohereRanker(model=way["model"], top_k=len(texts), api_key=key, api_base_url=way["url"])
    documents = [Document(content=text, id=str(at)) for at, text in enumerate(texts)]
    return [[int(one.id), one.score] for one in ranker.run(query=query, documents=documents)["documents"]]


def litellm_vllm(way, query, texts):
    return _litellm("hosted_vllm", way, query, texts)


def litellm_cohere(way, query, texts):
    return _litellm("cohere", way, query, texts)


def _litellm(provider, way, query, texts):
    import litellm

    found = litellm.rerank(
        model=f"{provider}/{way['model']}",
        query=query,
        documents=texts,
        top_n=len(texts),
        api_base=way["url"],
        api_key=way["key"],
    )
    assert all(one.get("document") is None or one["document"]["text"] == texts[one["index"]] for one in found.results)
    return [[one["index"], one["relevance_score"]] for one in found.results]


def main(name):
    asked = json.load(sys.stdin)
    found = []
    for way in asked["ways"]:
        try:
            found.append(globals()[name](way, asked["query"], way.get("texts", asked["texts"])))
        except Exception as error:
            found.append({"error": f"{type(error).__name__}: {error}"})
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
