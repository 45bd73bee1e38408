# odesteer serve on a CPU. Build from an unpacked sdist or the repository: docker build -t odesteer .
# Run: docker run -p 8000:8000 -v $PWD:/data odesteer serve /data/model --steer name=/data/steerer.safetensors
FROM python:3.11-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu torch \
    && pip install --no-cache-dir --constraint constraints.txt ".[serve,fast,gguf,hub]" \
    && useradd --create-home --uid 1000 odesteer
USER 1000
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["odesteer"]
CMD ["serve", "--host", "0.0.0.0"]
