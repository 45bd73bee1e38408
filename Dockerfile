# odesteer serve on a CPU. Build from an unpacked sdist or the repository: docker build -t odesteer .
# Run: docker run -p 8000:8000 -v $PWD:/data odesteer serve /data/model --steer name=/data/steerer.safetensors
FROM python:3.11-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu "torch>=2.6" \
    && pip install --no-cache-dir ".[serve,fast,gguf,hub]" \
    && useradd --create-home odesteer
USER odesteer
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["odesteer"]
CMD ["serve", "--host", "0.0.0.0"]
