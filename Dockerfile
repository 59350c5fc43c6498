FROM python:3.11-slim
# What is installed beside the server: torch and onnx let it answer predictions. torch alone may take gigabytes, most of it
# for GPUs; --build-arg PIP_EXTRA_INDEX_URL names an index that has one without.
ARG EXTRAS=server,fast,s3,torch,onnx
ARG PIP_EXTRA_INDEX_URL=
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]" \
 && useradd --uid 1000 --create-home folkmoot && install --directory --owner folkmoot --mode 700 /data
USER folkmoot
WORKDIR /data
ENV FOLKMOOT_DATA_DIR=/data
EXPOSE 8000
CMD ["folkmoot", "serve", "--host", "0.0.0.0"]
