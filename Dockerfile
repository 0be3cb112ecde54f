# The project for Ray on Kubernetes (configs/clusters), the same image for head and workers.
FROM python:3.11.14-slim-bookworm

# KubeRay's probes call wget.
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv==0.13.9

WORKDIR /recsys
COPY . .
# For GPUs: --build-arg TORCH_BACKEND=cu130, or what the nodes' driver runs.
ARG TORCH_BACKEND=cpu
RUN uv pip install --system --no-cache --torch-backend "$TORCH_BACKEND" -c constraints.txt -e '.[cluster]'
