# A private bucket: versioned, encrypted, TLS only. What is replaced or removed can be had back for some days.

terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

variable "name" { type = string }

variable "key_arn" {
  description = "Key of its objects; null for S3's own."
  type        = string
}

variable "log_bucket" {
  description = "Bucket that gets its access log; null for none."
  type        = string
}

variable "old_versions_days" { type = number }

variable "expire_days" {
  description = "Days after which objects go; null for never."
  type        = number
  default     = null
}

variable "passing" {
  description = "Prefix of objects that are of no use after a day; empty for none."
  type        = string
  default     = ""
}

variable "takes_access_logs" {
  description = "Whether S3 may deliver other buckets' access logs here."
  type        = bool
  default     = false
}

data "aws_caller_identity" "this" {}

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_18:a bucket of logs has no access log of its own; the others have one (log_bucket)
  #checkov:skip=CKV_AWS_144:tables are copied by `lakeops snapshot`, landing files by module landing_copy; a half copied Delta table is none
  #checkov:skip=CKV_AWS_145:encrypted by the key where one is given; S3's log delivery takes only its own
  #checkov:skip=CKV2_AWS_62:deliveries are found by listing the landing folder; nothing listens to events
  bucket = var.name
}

resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id
  versioning_configuration { status = "Enabled" }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id
  rule {
    bucket_key_enabled = var.key_arn != null
    apply_server_side_encryption_by_default {
      sse_algorithm     = var.key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.key_arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket                  = aws_s3_bucket.this.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id
  rule { object_ownership = "BucketOwnerEnforced" }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket = aws_s3_bucket.this.id
  rule {
    id     = "leftovers"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload { days_after_initiation = 7 }
    noncurrent_version_expiration { noncurrent_days = var.old_versions_days }
  }
  dynamic "rule" {
    for_each = var.passing == "" ? [] : [var.passing]
    content {
      id     = "passing"
      status = "Enabled"
      filter { prefix = rule.value }
      expiration { days = 1 }
      abort_incomplete_multipart_upload { days_after_initiation = 1 }
    }
  }
  dynamic "rule" {
    for_each = var.expire_days[*]
    content {
      id     = "age"
      status = "Enabled"
      filter {}
      expiration { days = rule.value }
      abort_incomplete_multipart_upload { days_after_initiation = 7 }
    }
  }
  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_logging" "this" {
  count         = var.takes_access_logs ? 0 : 1
  bucket        = aws_s3_bucket.this.id
  target_bucket = var.log_bucket
  target_prefix = "access/${var.name}/"
}

data "aws_iam_policy_document" "this" {
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.this.arn, "${aws_s3_bucket.this.arn}/*"]
    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
  dynamic "statement" {
    for_each = var.takes_access_logs ? [1] : []
    content {
      sid       = "AccessLogs"
      actions   = ["s3:PutObject"]
      resources = ["${aws_s3_bucket.this.arn}/*"]
      principals {
        type        = "Service"
        identifiers = ["logging.s3.amazonaws.com"]
      }
      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [data.aws_caller_identity.this.account_id]
      }
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  bucket     = aws_s3_bucket.this.id
  policy     = data.aws_iam_policy_document.this.json
  depends_on = [aws_s3_bucket_public_access_block.this]
}

output "name" {
  value      = aws_s3_bucket.this.id
  depends_on = [aws_s3_bucket_policy.this] # who logs into it needs its leave
}
output "arn" { value = aws_s3_bucket.this.arn }
